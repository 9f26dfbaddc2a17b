-- Whose data a request is about is looked up when somebody decides: what this row said of it, whoever may write the store could change.
alter table resus_control.approvals drop column facilities;

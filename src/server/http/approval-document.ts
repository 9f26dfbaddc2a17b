import type { ApprovalDocument } from '../../api/authority-schemas.ts'
import type { Approval } from '../../catalog/approvals.ts'
import type { View } from '../view.ts'

/** A request for a second person, as the API shows it: of the facilities that hold data there, those alone that may be known. */
export function approvalDocument(approval: Approval, view: View): ApprovalDocument {
  return {
    id: approval.id,
    operation: approval.operation as ApprovalDocument['operation'],
    system: approval.system,
    component: approval.component,
    facilities: view.facilitiesOf(approval).filter((facility) => view.seesFacility(facility)),
    parameters: approval.parameters as Record<string, unknown>,
    digest: approval.digest,
    askedBy: approval.asked_name,
    askedAt: approval.asked_at.toISOString(),
    expiresAt: approval.expires_at.toISOString(),
    state: approval.state,
    decidedBy: approval.decided_name,
    decidedAt: approval.decided_at?.toISOString() ?? null,
    factor: approval.factor,
    reason: approval.reason,
    outcome: approval.outcome,
  }
}

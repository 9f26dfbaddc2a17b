import type { ApprovalDocument } from '../../api/authority-schemas.ts'
import type { Approval } from '../../catalog/approvals.ts'

/** A request for a second person, as the API shows it. */
export function approvalDocument(approval: Approval): ApprovalDocument {
  return {
    id: approval.id,
    operation: approval.operation as ApprovalDocument['operation'],
    system: approval.system,
    component: approval.component,
    facilities: [...approval.facilities],
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

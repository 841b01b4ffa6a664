//! Consent: under dual control a step that one operator has proposed takes effect only with the
//! signed approval of another.
//!
//! Proposals and approvals are compact JWS (RFC 7515), signed with the operators' registered keys,
//! `kid` being the operator's name. Both are kept in the records, as evidence.

use serde::{Deserialize, Serialize};

use super::jws::{Unverified, holder_key};
use super::records::digest;
use super::rotate::Desk;
use crate::domain::record::{Approval, Digest, Proposal, Who};
use crate::domain::{Refusal, RefusalCode, Step, UnixTime};

/// The `typ` of a signed proposal.
pub const PROPOSAL_TYP: &str = "fob-proposal+jwt";

/// The `typ` of a signed approval.
pub const APPROVAL_TYP: &str = "fob-approval+jwt";

/// The longest a proposal may stay open, in seconds.
pub const PROPOSAL_LIFETIME_MAX_S: u64 = 30 * 86_400;

/// Operators that there must be before one can be added only by proposal and approval, and that
/// stay under dual control.
const OPERATORS_MIN: usize = 2;

/// What an operator signs to propose a step.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ProposalClaims {
    /// The operator.
    pub iss: String,
    /// When it was signed.
    pub iat: UnixTime,
    /// When it ends.
    pub exp: UnixTime,
    /// What is proposed.
    pub step: Step,
}

/// What an operator signs to approve of a proposal.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ApprovalClaims {
    /// The operator.
    pub iss: String,
    /// When it was signed.
    pub iat: UnixTime,
    /// When it ends.
    pub exp: UnixTime,
    /// The number of the proposal's record.
    pub proposal: u64,
    /// SHA-256 of the signed proposal, base64url.
    pub digest: Digest,
}

/// The step a signed proposal asks for.
///
/// # Errors
/// `forbidden`, saying what does not hold.
pub fn propose(desk: &Desk<'_>, jws: &str) -> Result<(Step, Who), Refusal> {
    let (claims, operator) = verify::<ProposalClaims>(desk, jws, PROPOSAL_TYP, "the proposal")?;
    let life = claims.exp.saturating_sub(claims.iat);
    if claims.iss != operator || !(1..=PROPOSAL_LIFETIME_MAX_S).contains(&life) {
        return Err(forbidden(
            "the proposal names another operator, or holds for too long",
        ));
    }
    if claims.exp <= desk.now {
        return Err(forbidden("the proposal has expired"));
    }
    if matches!(
        claims.step,
        Step::Found | Step::Schedule | Step::Propose { .. }
    ) {
        return Err(forbidden("no such step can be proposed"));
    }
    let step = Step::Propose {
        step: Box::new(claims.step),
        expires: claims.exp,
        jws: jws.to_owned(),
    };
    let who = Who {
        operator,
        approval: None,
    };
    Ok((step, who))
}

/// Whether a step may take effect.
///
/// # Errors
/// `forbidden`, saying what is missing or does not hold.
pub(super) fn check(desk: &Desk<'_>, step: &Step, who: &Who) -> Result<(), Refusal> {
    if let Step::Propose { jws, .. } = step {
        let (proposed, proposer) = propose(desk, jws)?;
        if proposed != *step || proposer != *who {
            return Err(forbidden("the proposal says something else"));
        }
        return Ok(());
    }
    let operators = desk.book.standing().operators.len();
    if matches!(step, Step::RemoveOperator { .. })
        && desk.settings.dual_control
        && operators <= OPERATORS_MIN
    {
        return Err(forbidden(
            "under dual control two operators stay: add another one first",
        ));
    }
    match &who.approval {
        Some(approval) => check_approval(desk, step, who, approval),
        None if needs_approval(desk, step) => Err(forbidden(
            "dual control is on: propose the step with --operator and --key, and have another \
             operator approve of it",
        )),
        None => Ok(()),
    }
}

fn needs_approval(desk: &Desk<'_>, step: &Step) -> bool {
    match step {
        // What was prepared under dual control goes on by itself.
        Step::Schedule | Step::Found => false,
        Step::AddOperator(_) if desk.book.standing().operators.len() < OPERATORS_MIN => false,
        _ => desk.settings.dual_control,
    }
}

fn check_approval(
    desk: &Desk<'_>,
    step: &Step,
    who: &Who,
    approval: &Approval,
) -> Result<(), Refusal> {
    let standing = desk.book.standing();
    let proposal: &Proposal = standing
        .proposal(approval.proposal, desk.now)
        .ok_or_else(|| forbidden("there is no such open proposal; see `fob epoch proposals`"))?;
    if proposal.step != *step || proposal.operator != who.operator {
        return Err(forbidden("the proposal is for another step"));
    }
    // Whoever proposed may have been removed since.
    verify::<ProposalClaims>(desk, &proposal.jws, PROPOSAL_TYP, "the proposal")?;
    let (claims, operator) =
        verify::<ApprovalClaims>(desk, &approval.jws, APPROVAL_TYP, "the approval")?;
    if operator == proposal.operator {
        return Err(forbidden(
            "another operator than the one who proposed has to approve",
        ));
    }
    let fits = claims.iss == operator
        && claims.proposal == proposal.number
        && claims.digest == digest(&proposal.jws);
    if !fits || claims.exp <= desk.now {
        return Err(forbidden(
            "the approval is of something else, or has expired",
        ));
    }
    Ok(())
}

/// The claims of what an operator has signed, and who it was.
fn verify<T: serde::de::DeserializeOwned>(
    desk: &Desk<'_>,
    jws: &str,
    typ: &str,
    what: &str,
) -> Result<(T, String), Refusal> {
    let refuse = |why: &str| forbidden(format!("{what}: {why}"));
    let unverified = Unverified::parse(jws, typ).map_err(refuse)?;
    let standing = desk.book.standing();
    let operator = unverified
        .kid()
        .and_then(|name| standing.operator(name))
        .ok_or_else(|| refuse("its kid is no registered operator"))?;
    let key = holder_key(&operator.jwk).map_err(refuse)?;
    let claims = unverified.verify(&key).map_err(refuse)?;
    Ok((claims, operator.name.clone()))
}

fn forbidden(why: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(RefusalCode::Forbidden).detail(why)
}

//! The PIN of a code set: counted, then compared. Floor 3.

use super::Engine;
use crate::domain::authorization::PIN_ATTEMPTS_MAX;
use crate::domain::{Authorization, AuthorizationState, Refusal, RefusalCode};
use crate::store::{Applied, Write};

impl Engine {
    /// Counts the attempt durably, compares, and takes the count back where it was right. Rules
    /// that do not depend on the PIN come before it, so that no attempt is spent on a request that
    /// could not succeed; and one attempt at a code set comes after the other, so that the same
    /// request sent many times at once does not lock itself out.
    ///
    /// Returns whether the PIN was compared: not where the code set was redeemed meanwhile.
    pub(super) async fn check_pin(
        &self,
        authorization: &Authorization,
        pin: Option<&str>,
    ) -> Result<bool, Refusal> {
        let Authorization {
            id, fleet, version, ..
        } = *authorization;
        let Some(pin) = pin else {
            return Err(Refusal::new(RefusalCode::PinRequired).field("pin"));
        };
        let turn = self.shared.turns.of(id);
        let _turn = turn.take().await;
        let state = self.shared.book.look_up(id, |now| now.state);
        if state != Some(AuthorizationState::Open) {
            return Ok(false);
        }
        let applied = self.write(vec![Write::PinAttempt(id, version)]).await?;
        match applied.first() {
            Some(Applied::PinAttempts(attempts)) if *attempts <= PIN_ATTEMPTS_MAX => {}
            Some(Applied::PinAttempts(_)) => return Err(RefusalCode::PinLocked.into()),
            _ => return Err(RefusalCode::CodeSetUnknown.into()),
        }
        if !self
            .shared
            .code_set_key
            .pin_matches(pin, fleet, id, version)
        {
            return Err(Refusal::new(RefusalCode::PinWrong).field("pin"));
        }
        // Or the right PIN, sent again while the HSM is away, would lock the code set.
        self.write(vec![Write::PinRight(id, version)]).await?;
        Ok(true)
    }
}

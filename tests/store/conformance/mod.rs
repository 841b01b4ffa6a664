//! What every store does alike. A store passes by being put through [`conformance!`] with a
//! [`Place`] of its own.
//!
//! [`conformance!`]: crate::store::conformance::conformance

use fob::domain::FleetId;
use fob::store::whole::Whole;

pub(super) mod acts;
pub(super) mod amend;
pub(super) mod authorize;
pub(super) mod conditions;
pub(super) mod durability;
pub(super) mod orders;
pub(super) mod purge;
pub(super) mod read;
pub(super) mod redeem;
pub(super) mod registry;
pub(super) mod renew;
pub(crate) mod rulings;
pub(super) mod signatures;
pub(super) mod steps;
pub(super) mod suspend;
pub(super) mod whole;

/// Where one store's rows live, from before it is opened until after it is gone.
pub(super) trait Place {
    /// The store.
    type Store: Whole;

    /// A fresh place with an empty store in it.
    fn new() -> Self;

    /// Opens what is there, as a new process would.
    fn open(&self) -> Self::Store;

    /// Suspends a fleet behind the store's back; no write does so yet.
    fn suspend_fleet(&self, fleet: FleetId);
}

/// The suite as tests over `$place`.
macro_rules! conformance {
    ($place:ty) => {
        $crate::store::conformance::cases! { $place;
            registry: settings_are_fixed, fleets_are_unique, a_function_keeps_its_meaning,
                a_vehicle_keeps_epoch_and_status, an_identity_is_replaced_whole,
                a_terminal_keeps_its_status, a_terminal_is_vouched_for_by_one_that_may,
                what_is_new_is_taken_once, what_is_erased_leaves_its_bundles_to_another_name,
                tokens_end_once, a_token_takes_the_place_of_another, tokens_are_noted_as_used, epochs_go_on, trust_lists_rise,
                nothing_belongs_to_no_fleet, rows_come_in_order_and_whole;
            steps: records_follow_each_other, a_token_has_one_active_epoch,
                a_step_is_written_whole_or_not_at_all;
            authorize: every_field_comes_back, an_id_is_taken_once, the_same_request_gets_the_same_answer,
                a_refused_request_is_not_used_up, a_borrowers_request_is_answered_once,
                attempts_are_counted_up_to_the_limit;
            conditions: each_condition_of_an_authorization_counts,
                each_condition_of_a_redemption_counts;
            redeem: a_redemption_is_found_by_all_its_names, at_most_one, a_bundle_id_is_taken_once, every_field_comes_back,
                the_counter_never_goes_down, indexes_are_taken_once, later_writes_see_earlier_ones,
                rivals_from_threads_get_one_bundle;
            amend: an_amendment_comes_back_whole, each_condition_of_an_amendment_counts,
                redemption_and_change_exclude_each_other, the_same_amendment_is_answered_once,
                an_order_gets_a_row_when_it_is_amended, a_reset_is_done_whole_or_not_at_all,
                what_is_revoked_stays_so, lists_and_contacts_are_kept,
                amended_orders_are_purged_when_they_are_over,
                a_command_of_a_suspended_terminal_does_not_count,
                an_approval_is_kept_and_the_code_set_with_it;
            suspend: who_is_suspended_gets_nothing_until_it_is_resumed,
                a_terminal_that_is_suspended_commands_and_redeems_no_more,
                each_condition_of_a_suspension_counts, keys_follow_what_stands_so,
                what_is_issued_again_is_suspended_with_what_it_hangs_on,
                what_relies_on_conditions_counts_while_they_are_so,
                what_relies_on_rules_and_models_counts_while_they_are_so,
                a_key_suspended_by_itself_makes_a_change_look_again;
            renew: a_renewal_comes_back_whole, each_condition_of_a_renewal_counts,
                what_an_epoch_has_signed_is_found, renewed_bundles_are_purged_when_they_are_over;
            signatures: what_is_recorded_is_counted, what_goes_is_counted, a_transaction_without_it_is_not_counted;
            orders: an_order_is_found_by_all_its_names, orders_and_authorizations_share_their_pages,
                the_same_order_is_issued_once, many_calls_in_one_transaction,
                each_condition_counts, a_bundle_id_is_taken_once, orders_are_purged;
            rulings: rules_follow_each_other, keys_follow_rules_in_their_order, what_is_frozen_stays_so_until_it_is_released,
                what_is_frozen_is_asked_at_the_commit, withheld_keys_may_be_the_same_ones_again,
                days_of_a_quota_begin_once_and_in_order;
            acts: an_act_is_kept_with_what_it_tells_of, what_does_not_take_place_leaves_no_act,
                what_a_list_registers_is_one_act,
                acts_are_read_in_pages, an_erasure_takes_names_out_of_acts;
            read: pages_follow_each_other, filters, fleets_do_not_see_each_other,
                what_is_not_there;
            purge: only_what_was_over_before, at_most_so_many, nothing_is_left_of_it,
                tokens;
            durability: everything_is_there_after_opening_again, reopening_loses_nothing,
                a_refused_write_leaves_nothing_and_spares_the_others, an_empty_transaction;
            whole: what_is_given_out_is_taken_in, an_error_ends_it,
                it_is_known_how_far_it_has_come, fences_stand_until_they_are_taken_down,
                a_restore_fences_off_what_was_before;
        }
    };
}
pub(super) use conformance;

/// One `#[test]` for each case.
macro_rules! cases {
    ($place:ty; $($module:ident: $($case:ident),+;)+) => { $(
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::store::conformance::$module::$case::<$place>();
                }
            )+
        }
    )+ };
}
pub(super) use cases;

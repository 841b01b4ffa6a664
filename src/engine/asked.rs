//! What an authorization asks for, beside a preset of the fleet's: functions, hours and limits. Floor
//! 3.

use std::collections::BTreeMap;

use fob_verify::window::Recurring;

use crate::domain::function::{FUNCTIONS_MAX, FunctionRef};
use crate::domain::rules::Preset;
use crate::domain::{Catalogue, FunctionCode, Refusal, Window};

/// The functions of a preset and others beside them.
pub(super) fn with_preset(
    preset: &[FunctionCode],
    others: &[FunctionRef],
    catalogue: &Catalogue,
) -> Result<Vec<FunctionCode>, Refusal> {
    if others.is_empty() {
        return Ok(preset.to_vec());
    }
    let mut all = [preset, &catalogue.resolve(others)?].concat();
    all.sort_unstable();
    all.dedup();
    if all.len() > FUNCTIONS_MAX {
        return Err(Refusal::malformed("functions", "name 1 to 64 functions"));
    }
    Ok(all)
}

/// The hours of the week, as far as a preset leaves them open; it must last long enough.
pub(super) fn within_preset(
    preset: &Preset,
    window: Window,
    asked: Option<Recurring>,
) -> Result<Option<Recurring>, Refusal> {
    let lasts_s = window.not_after - window.not_before;
    if let Some(longest) = preset.lasts_s.filter(|longest| lasts_s > *longest) {
        return Err(Refusal::malformed(
            "not_after",
            format!("this preset lasts {longest} s at most"),
        ));
    }
    match (preset.recurring, asked) {
        (Some(own), Some(asked)) if own != asked => Err(Refusal::malformed(
            "recurring",
            "this preset has hours of its own: leave them out",
        )),
        (own, asked) => Ok(own.or(asked)),
    }
}

/// Of two limits of a function the lower one, ascending by code.
pub(super) fn least_uses(
    preset: &[(FunctionCode, u32)],
    asked: &[(FunctionCode, u32)],
) -> Box<[(FunctionCode, u32)]> {
    let mut least: BTreeMap<FunctionCode, u32> = preset.iter().copied().collect();
    for (code, uses) in asked {
        let known = least.entry(*code).or_insert(*uses);
        *known = (*known).min(*uses);
    }
    least.into_iter().collect()
}

/// Limits of functions that are authorized, ascending by code; each function once.
pub(super) fn max_uses(
    asked: &[(FunctionRef, u32)],
    functions: &[FunctionCode],
    resolve: impl Fn(&FunctionRef) -> Result<FunctionCode, Refusal>,
) -> Result<Box<[(FunctionCode, u32)]>, Refusal> {
    let refuse = |why| Err(Refusal::malformed("max_uses", why));
    let mut limits = Vec::with_capacity(asked.len().min(functions.len()));
    for (function, uses) in asked {
        let code = resolve(function).map_err(|refusal| refusal.field("max_uses"))?;
        if functions.binary_search(&code).is_err() {
            return refuse("it limits a function that is not authorized");
        }
        if *uses == 0 {
            return refuse("a function may be used at least once");
        }
        limits.push((code, *uses));
    }
    limits.sort_unstable();
    if limits.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return refuse("a function is limited twice");
    }
    Ok(limits.into())
}

//! Questions about bundles and authorizations: floor 2, `store/postgres`. One round each.

use tokio_postgres::Row;
use uuid::Uuid;

use super::bundle_body;
use super::error::Trouble;
use super::rows::{bytes, get, id, name, named, small, text};
use super::session::{Ask, Session, values};
use crate::domain::authorization::Amended;
use crate::domain::{
    Author, Authorization, AuthorizationId, AuthorizationState, Bundle, BundleId, EpochId, FleetId,
    IdentityId, Recipient, Restrictions, TerminalId, TokenId, UnixTime, VehicleId, Window,
};
use crate::store::encoding::{
    answered, authorization_body, column, context, corrupt, number, words,
};
use crate::store::{
    AnsweredOrder, AuthorizationFilter, BundleKey, Cursor, SignedBundle, SignedBy, StoreError,
};

/// The columns [`signed_bundle`] reads, in its order.
macro_rules! bundles {
    ($rest:literal) => {
        concat!(
            "SELECT b.id, b.version, b.fleet, b.authorization_id, b.vehicle, b.identity, b.epoch,
             b.ends, b.format, b.body, i.body, s.body, b.author, b.terminal FROM bundles b
             LEFT JOIN contexts i ON i.id = b.issuer LEFT JOIN contexts s ON s.id = b.subjects ",
            $rest
        )
    };
}

/// The columns [`authorization`] reads, in its order.
macro_rules! authorizations {
    ($rest:literal) => {
        concat!(
            "SELECT a.id, a.fleet, a.vehicle, a.version, a.state, a.not_after, a.redeem_by,
             a.format, a.body, a.bundle, a.revision, a.code_set, a.pin_attempts
             FROM authorizations a ",
            $rest
        )
    };
}

/// Every authorization, by id.
pub(super) const ALL_AUTHORIZATIONS: &str = authorizations!("ORDER BY a.id");

/// Those of these ids.
pub(super) const THESE_AUTHORIZATIONS: &str = authorizations!("WHERE a.id = ANY($1)");

/// Every version of every bundle, by id, oldest first.
pub(super) const ALL_BUNDLES: &str = bundles!("ORDER BY b.id, b.version");

/// The bundle of that name, as it was issued last.
pub(super) async fn bundle(
    session: &Session,
    by: BundleKey,
) -> Result<Option<SignedBundle>, Trouble> {
    let (sql, of) = match by {
        BundleKey::Id(id) => (
            bundles!("WHERE b.id = $1 ORDER BY b.version DESC LIMIT 1"),
            id.0,
        ),
        // An order's authorization has its bundle's id, and no row until it is amended.
        BundleKey::Authorization(id) => (
            bundles!(
                "WHERE b.id = coalesce((SELECT a.bundle FROM authorizations a WHERE a.id = $1), $1)
                 AND b.authorization_id = $1 ORDER BY b.version DESC LIMIT 1"
            ),
            id.0,
        ),
    };
    let rows = session.query(sql, values![Uuid::from_bytes(of)]).await?;
    Ok(rows.first().map(signed_bundle).transpose()?)
}

/// Every version of a bundle, oldest first.
pub(super) async fn versions(
    session: &Session,
    of: BundleId,
) -> Result<Vec<SignedBundle>, Trouble> {
    let sql = bundles!("WHERE b.id = $1 ORDER BY b.version");
    let rows = session.query(sql, values![Uuid::from_bytes(of.0)]).await?;
    let versions: Result<_, StoreError> = rows.iter().map(signed_bundle).collect();
    Ok(versions?)
}

/// Bundles that stand as an epoch signed them, in the order of their ids.
pub(super) async fn signed_by(
    session: &Session,
    epoch: EpochId,
    now: UnixTime,
    after: Option<&Cursor>,
    at_most: u32,
) -> Result<SignedBy, Trouble> {
    let after = after.map(|cursor| Uuid::from_slice(&cursor.0));
    let after = after
        .transpose()
        .map_err(|_| corrupt("a cursor that is none"))?;
    let at_most = at_most.max(1);
    let rows = session
        .query(
            bundles!(
                "WHERE b.epoch = $1 AND b.ends > $2 AND ($3::uuid IS NULL OR b.id > $3)
                 AND NOT EXISTS (SELECT 1 FROM bundles n WHERE n.id = b.id
                                 AND n.version > b.version)
                 ORDER BY b.id LIMIT $4"
            ),
            values![&epoch.0[..], column(now)?, after, i64::from(at_most)],
        )
        .await?;
    let bundles: Result<Vec<_>, StoreError> = rows.iter().map(signed_bundle).collect();
    let bundles = bundles?;
    let full = bundles.len() == at_most as usize;
    let last = bundles.last().filter(|_| full);
    let next = last.map(|last| Cursor(last.bundle.id.0.into()));
    Ok(SignedBy { bundles, next })
}

/// The authorizations of an identity's bundles.
pub(super) async fn held_by(
    session: &Session,
    fleet: FleetId,
    identity: &IdentityId,
) -> Result<Vec<AuthorizationId>, Trouble> {
    let rows = session
        .query(
            "SELECT DISTINCT authorization_id FROM bundles WHERE fleet = $1 AND identity = $2
             ORDER BY authorization_id",
            values![Uuid::from_bytes(fleet.0), identity.as_str()],
        )
        .await?;
    let held: Result<_, StoreError> = rows
        .iter()
        .map(|row| Ok(AuthorizationId(id(row, 0)?)))
        .collect();
    Ok(held?)
}

/// What a request to amend was answered with.
pub(super) async fn outcome(
    session: &Session,
    scope: &[u8; 32],
) -> Result<Option<Vec<u8>>, Trouble> {
    let sql = "SELECT outcome FROM requests WHERE scope = $1";
    let rows = session.query(sql, values![&scope[..]]).await?;
    Ok(match rows.first() {
        Some(row) => get(row, 0)?,
        None => None,
    })
}

/// Every order answered under the call.
pub(super) async fn answered(
    session: &Session,
    call: &[u8; 32],
) -> Result<Vec<AnsweredOrder>, Trouble> {
    let rows = session
        .query(
            "SELECT orders FROM answered WHERE call = $1 ORDER BY number",
            values![&call[..]],
        )
        .await?;
    let mut orders = Vec::new();
    for row in &rows {
        answered::each(get(row, 0)?, |order| {
            orders.push(order);
            Ok(())
        })?;
    }
    Ok(orders)
}

/// The authorizations that pass `filter`, ascending by id.
pub(super) async fn authorizations(
    session: &Session,
    filter: &AuthorizationFilter,
) -> Result<Vec<Authorization>, Trouble> {
    let of = || {
        let id = filter.id.map(|id| Uuid::from_bytes(id.0));
        let after = filter.after.map(|id| Uuid::from_bytes(id.0));
        let vehicle = filter.vehicle.as_ref().map(VehicleId::as_str);
        let fleet = Uuid::from_bytes(filter.fleet.0);
        values![fleet, vehicle, id, after, i64::from(filter.limit)]
    };
    let mut values = of();
    values.extend(values![
        filter.state.map(words::state),
        filter.expired,
        column(filter.now)?
    ]);
    let mut asks = vec![
        // One snapshot: what is amended in between is in one of them and not in both.
        Ask::Plain("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
        Ask::Query(
            authorizations!(
                "WHERE a.fleet = $1 AND ($2::text IS NULL OR a.vehicle = $2)
                 AND ($3::uuid IS NULL OR a.id = $3) AND ($4::uuid IS NULL OR a.id > $4)
                 AND ($6::bigint IS NULL OR a.state = $6)
                 AND ($7::boolean IS NULL OR a.state <> 0
                      OR $7 = (least(a.not_after, a.redeem_by) <= $8))
                 ORDER BY a.id LIMIT $5"
            ),
            values,
        ),
    ];
    // Orders have no rows of their own: their authorizations are what their bundles say.
    let redeemed = filter
        .state
        .is_none_or(|it| it == AuthorizationState::Redeemed);
    if redeemed {
        asks.push(Ask::Query(
            bundles!(
                "WHERE b.author IS NOT NULL AND b.fleet = $1
                 AND ($2::text IS NULL OR b.vehicle = $2)
                 AND ($3::uuid IS NULL OR b.id = $3) AND ($4::uuid IS NULL OR b.id > $4)
                 AND NOT EXISTS (SELECT 1 FROM authorizations a WHERE a.id = b.id)
                 ORDER BY b.id LIMIT $5"
            ),
            of(),
        ));
    }
    asks.push(Ask::Plain("COMMIT"));
    let answers = match session.round(&asks).await {
        Ok(answers) => answers,
        Err(unanswered) => {
            let _ = session.execute("ROLLBACK").await;
            return Err(unanswered.trouble());
        }
    };
    let mut found = Vec::new();
    for row in answers.get(1).into_iter().flatten() {
        found.push(authorization(row)?);
    }
    for row in answers.get(2).filter(|_| redeemed).into_iter().flatten() {
        found.push(ordered(row)?);
    }
    found.sort_by_key(|one| one.id);
    found.truncate(filter.limit as usize);
    Ok(found)
}

/// A bundle from its row.
pub(super) fn signed_bundle(row: &Row) -> Result<SignedBundle, StoreError> {
    if get::<i64>(row, 8)? != bundle_body::FORMAT {
        return Err(corrupt("a bundle of another format"));
    }
    let bytes_of_body: &[u8] = get(row, 9)?;
    let body = bundle_body::decode(bytes_of_body)?;
    let missing = || corrupt("a context is missing");
    let issuer: &[u8] = get::<Option<_>>(row, 10)?.ok_or_else(missing)?;
    let subjects: &[u8] = get::<Option<_>>(row, 11)?.ok_or_else(missing)?;
    let bundle = Bundle {
        id: BundleId(id(row, 0)?),
        authorization: AuthorizationId(id(row, 3)?),
        version: small(row, 1)?,
        fleet: FleetId(id(row, 2)?),
        vehicle: name(row, 4, VehicleId::parse)?,
        vehicle_epoch: body.vehicle_epoch,
        identity: name(row, 5, IdentityId::parse)?,
        holder: body.holder,
        epoch: EpochId(bytes(row, 6)?),
        algorithm: body.algorithm,
        issuer: context::read_issuer(issuer)?,
        issued_at: body.issued_at,
        window: Window {
            not_before: body.not_before,
            not_after: number(get(row, 7)?)?,
        },
        region: body.region,
        recurring: body.recurring,
        subjects: context::read_subjects(subjects)?,
        keys: body.keys,
    };
    if bundle.subjects.len() != bundle.keys.len() {
        return Err(corrupt("a bundle that does not fit its functions"));
    }
    let signed = SignedBundle {
        bundle,
        proof: body.proof,
    };
    bundle_body::check(&signed, bytes_of_body)?;
    Ok(signed)
}

/// The authorization of an order, from its bundle's row.
fn ordered(row: &Row) -> Result<Authorization, StoreError> {
    let bundle = signed_bundle(row)?.bundle;
    let terminal: Option<&str> = get(row, 13)?;
    let uses = bundle.each_key();
    Ok(Authorization {
        id: AuthorizationId(bundle.id.0),
        fleet: bundle.fleet,
        version: bundle.version,
        vehicle: bundle.vehicle.clone(),
        functions: bundle
            .subjects
            .iter()
            .map(|subject| subject.function)
            .collect(),
        window: bundle.window,
        redeem_by: bundle.window.not_after,
        restrictions: Restrictions {
            max_uses: uses
                .filter_map(|(subject, key)| Some((subject.function, key.max_uses?)))
                .collect(),
            region: bundle.region,
            recurring: bundle.recurring,
            recipient: Recipient {
                identity: Some(bundle.identity),
                terminal: terminal
                    .map(|terminal| named(TerminalId::parse(terminal)))
                    .transpose()?,
                key: None,
            },
            amended: None,
            approved_until: None,
        }
        .boxed(),
        pin: false,
        signing: None,
        state: AuthorizationState::Redeemed,
        redeemed: true,
        created_at: bundle.issued_at,
        author: Author::Token(TokenId(id(row, 12)?)),
    })
}

/// An authorization from its row.
pub(super) fn authorization(row: &Row) -> Result<Authorization, StoreError> {
    if get::<i64>(row, 7)? != authorization_body::FORMAT {
        return Err(corrupt("an authorization of another format"));
    }
    let bytes_of_body: &[u8] = get(row, 8)?;
    let body = authorization_body::decode(bytes_of_body)?;
    let mut authorization = Authorization {
        id: AuthorizationId(id(row, 0)?),
        fleet: FleetId(id(row, 1)?),
        version: small(row, 3)?,
        vehicle: VehicleId::parse(text(row, 2)?)
            .map_err(|_| corrupt("a name outside its alphabet"))?,
        functions: body.functions,
        window: Window {
            not_before: body.not_before,
            not_after: number(get(row, 5)?)?,
        },
        redeem_by: number(get(row, 6)?)?,
        restrictions: body.restrictions,
        pin: body.pin,
        signing: body.signing,
        state: words::read_state(get(row, 4)?)?,
        redeemed: get::<Option<Uuid>>(row, 9)?.is_some(),
        created_at: body.created_at,
        author: body.author,
    };
    authorization_body::check(&authorization, bytes_of_body)?;
    if let Some(revision) = get::<Option<i64>>(row, 10)? {
        let code_set: Option<&[u8]> = get(row, 11)?;
        authorization.set_amended(Some(Amended {
            revision: number(revision)?,
            code_set: code_set
                .map(authorization_body::read_code_set)
                .transpose()?,
        }));
    }
    Ok(authorization)
}

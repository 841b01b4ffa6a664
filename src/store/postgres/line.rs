//! Statements sent over one connection before the first of them is answered: floor 2,
//! `store/postgres`. The database works at those while what comes after them is still decided.

use std::borrow::Borrow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

use super::session::{Ask, Session, Unanswered, Value};

/// A statement under way.
type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A statement under way, or what it was answered.
enum Asked<'a, T> {
    Waits(Asking<'a, T>),
    Ended(Result<T, Error>),
}

/// Statements that were sent, in their order.
pub(super) struct Line<'a> {
    session: &'a Session,
    asked: Vec<Asked<'a, Vec<Row>>>,
}

impl<'a> Line<'a> {
    pub(super) fn over(session: &'a Session) -> Self {
        Self {
            session,
            asked: Vec::new(),
        }
    }

    /// How many were sent.
    pub(super) fn len(&self) -> usize {
        self.asked.len()
    }

    /// Sends these after those that were sent. Waits for nothing but what is to be prepared.
    ///
    /// # Errors
    /// Where that fails. Nothing of these has been sent then.
    pub(super) async fn send<A>(
        &mut self,
        asks: impl IntoIterator<Item = A>,
    ) -> Result<(), Unanswered>
    where
        A: Borrow<Ask<'a>> + Send + 'a,
    {
        let asks: Vec<A> = asks.into_iter().collect();
        let session = self.session;
        let preparing = prepare(session, asks.iter().map(Borrow::borrow));
        let prepared = tokio::time::timeout(session.answer_within, preparing).await;
        let statements = match prepared {
            Ok(prepared) => prepared?,
            Err(_) => return Err(Unanswered { at: 0, error: None }),
        };
        let first = self.asked.len();
        for (ask, statement) in asks.into_iter().zip(statements) {
            self.asked
                .push(Asked::Waits(ask_for(session, ask, statement)));
        }
        send_all(&mut self.asked[first..]).await;
        Ok(())
    }

    /// Waits for all answers. The first that is none, in their order, is the error.
    pub(super) async fn answers(self) -> Result<Vec<Vec<Row>>, Unanswered> {
        self.answers_beside(&mut || {}).await
    }

    /// The same, calling `beside` whenever there is nothing to do but to wait.
    pub(super) async fn answers_beside(
        mut self,
        beside: &mut dyn FnMut(),
    ) -> Result<Vec<Vec<Row>>, Unanswered> {
        self.session.count_round();
        let answering = in_order(&mut self.asked, beside);
        match tokio::time::timeout(self.session.answer_within, answering).await {
            Ok(()) => ended(self.asked).map_err(|(at, error)| Unanswered {
                at,
                error: Some(error),
            }),
            Err(_) => Err(Unanswered { at: 0, error: None }),
        }
    }
}

/// Asks for one thing. It is sent when it is polled first.
fn ask_for<'a, A>(
    session: &'a Session,
    ask: A,
    statement: Option<Statement>,
) -> Asking<'a, Vec<Row>>
where
    A: Borrow<Ask<'a>> + Send + 'a,
{
    Box::pin(async move {
        let client = &session.client;
        let columns;
        let (sql, values): (_, &[Value<'_>]) = match ask.borrow() {
            Ask::Plain(sql) => (sql, &[]),
            Ask::Query(sql, values) => (sql, values),
            Ask::Rows(sql, rows) => {
                columns = rows.columns();
                (sql, &columns)
            }
        };
        let Some(statement) = statement else {
            return client.batch_execute(sql).await.map(|()| Vec::new());
        };
        let values = values.iter().map(|value| &**value as &(dyn ToSql + Sync));
        let values: Vec<_> = values.collect();
        client.query(&statement, &values).await
    })
}

/// The statements of `asks`; those not prepared yet are prepared together.
async fn prepare<'b, 'a: 'b>(
    session: &Session,
    asks: impl Iterator<Item = &'b Ask<'a>>,
) -> Result<Vec<Option<Statement>>, Unanswered> {
    let texts: Vec<_> = asks.map(Ask::prepared).collect();
    let mut known = session.statements.lock().await;
    let mut missing: Vec<&'static str> = Vec::new();
    for sql in texts.iter().flatten() {
        if !known.contains_key(sql) && !missing.contains(sql) {
            missing.push(sql);
        }
    }
    if !missing.is_empty() {
        session.count_round();
        let prepare = |sql: &&'static str| {
            let preparing: Asking<'_, Statement> = Box::pin(session.client.prepare(sql));
            Asked::Waits(preparing)
        };
        let mut asked: Vec<_> = missing.iter().map(prepare).collect();
        in_order(&mut asked, &mut || {}).await;
        let prepared = ended(asked).map_err(|(_, error)| Unanswered {
            at: 0,
            error: Some(error),
        })?;
        known.extend(missing.into_iter().zip(prepared));
    }
    let known = |sql: Option<&'static str>| known.get(sql?).cloned();
    Ok(texts.into_iter().map(known).collect())
}

/// Polls once all that wait, in their order, so that what they send is sent in it.
async fn send_all<T>(asked: &mut [Asked<'_, T>]) {
    poll_fn(|context| {
        for one in asked.iter_mut() {
            let _ = one.poll(context);
        }
        Poll::Ready(())
    })
    .await;
}

/// The same until each has ended.
async fn in_order<T>(asked: &mut [Asked<'_, T>], beside: &mut dyn FnMut()) {
    poll_fn(|context| {
        let mut all = Poll::Ready(());
        for one in asked.iter_mut() {
            if one.poll(context).is_pending() {
                all = Poll::Pending;
            }
        }
        if all.is_pending() {
            beside();
        }
        all
    })
    .await;
}

/// What they were answered, all of them having ended; the first error, and which it was.
fn ended<T>(asked: Vec<Asked<'_, T>>) -> Result<Vec<T>, (usize, Error)> {
    asked
        .into_iter()
        .enumerate()
        .filter_map(|(at, one)| match one {
            Asked::Waits(_) => None,
            Asked::Ended(result) => Some(result.map_err(|error| (at, error))),
        })
        .collect()
}

impl<T> Asked<'_, T> {
    fn poll(&mut self, context: &mut std::task::Context<'_>) -> Poll<()> {
        if let Self::Waits(asking) = self {
            match asking.as_mut().poll(context) {
                Poll::Ready(result) => *self = Self::Ended(result),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

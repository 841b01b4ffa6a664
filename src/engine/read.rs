//! Reads that go to the store, off the caller's thread.

use std::sync::Arc;

use super::{Engine, Failure};
use crate::concurrent;
use crate::domain::{Authorization, AuthorizationId, BundleId, FleetId};
use crate::store::{
    ActFilter, Acts, AuthorizationFilter, BundleKey, SignedBundle, Store, StoreError,
};

impl Engine {
    /// A bundle, by its id.
    ///
    /// # Errors
    /// `store_unavailable`; a fault where what was read cannot be right.
    pub async fn bundle(&self, id: BundleId) -> Result<Option<SignedBundle>, Failure> {
        self.read(move |store| store.bundle(BundleKey::Id(id)))
            .await
    }

    /// The bundle of an authorization.
    ///
    /// # Errors
    /// As [`Engine::bundle`].
    pub async fn bundle_of(&self, id: AuthorizationId) -> Result<Option<SignedBundle>, Failure> {
        self.read(move |store| store.bundle(BundleKey::Authorization(id)))
            .await
    }

    /// An authorization of a fleet, by its id: from the book, or from the store, which alone has
    /// those of orders.
    ///
    /// # Errors
    /// As [`Engine::bundle`].
    pub async fn authorization(
        &self,
        fleet: FleetId,
        id: AuthorizationId,
    ) -> Result<Option<Arc<Authorization>>, Failure> {
        if let Some(known) = self.book().authorization(id) {
            return Ok(Some(known).filter(|known| known.fleet == fleet));
        }
        let filter = AuthorizationFilter {
            fleet,
            id: Some(id),
            vehicle: None,
            state: None,
            expired: None,
            now: 0,
            after: None,
            limit: 1,
        };
        let found = self.authorizations(filter).await?;
        Ok(found.into_iter().next().map(Arc::new))
    }

    /// The authorizations a filter lets through.
    ///
    /// # Errors
    /// As [`Engine::bundle`].
    pub async fn authorizations(
        &self,
        filter: AuthorizationFilter,
    ) -> Result<Vec<Authorization>, Failure> {
        self.read(move |store| store.authorizations(&filter)).await
    }

    /// What those who administer fleets have done.
    ///
    /// # Errors
    /// The store's.
    pub async fn acts(&self, filter: ActFilter) -> Result<Acts, Failure> {
        self.read(move |store| store.acts(&filter)).await
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = Arc::clone(&self.shared.store);
        concurrent::spawn_blocking(move || read(&*store))
            .await
            .map_err(|error| Failure::Fault(format!("a read did not end: {error}")))?
            .map_err(Failure::from)
    }
}

//! The tokens under test, and another program's way to them.

use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use fob::hsm::{
    GeneratedKey, SessionCount, Signer, Token, TokenConfig, read_pin_file, verify_signature,
};
use secrecy::SecretString;
use serde::Deserialize;

/// What `setup` has left in its directory.
pub struct World {
    dir: PathBuf,
    /// Messages in a large batch.
    pub batch: usize,
    issuing: Section,
}

#[derive(Deserialize)]
struct Sections {
    hsm: Section,
}

#[derive(Deserialize)]
struct Section {
    module: PathBuf,
    init_args: Option<String>,
    label: String,
    serial: Option<String>,
    pin_file: PathBuf,
}

impl World {
    pub fn read(dir: &Path, batch: usize) -> Self {
        let text = std::fs::read_to_string(dir.join("hsm.toml")).unwrap();
        let sections: Sections = toml::from_str(&text).unwrap();
        Self {
            dir: dir.to_owned(),
            batch,
            issuing: sections.hsm,
        }
    }

    /// The issuing token, with so many sessions.
    pub fn config(&self, sessions: u16) -> TokenConfig {
        TokenConfig {
            init_args: self.issuing.init_args.clone(),
            serial: self.issuing.serial.clone(),
            sessions: SessionCount::Exactly(sessions),
            ..TokenConfig::new(&self.issuing.module, &self.issuing.label)
        }
    }

    pub fn pin(&self) -> SecretString {
        read_pin_file(&self.issuing.pin_file).unwrap()
    }

    /// The issuing token, opened with two sessions.
    pub fn open(&self) -> Token {
        self.open_with(self.config(2))
    }

    pub fn open_with(&self, config: TokenConfig) -> Token {
        match Token::open(config, self.pin()) {
            Ok(token) => token,
            Err(error) => panic!("{error}"),
        }
    }

    /// What to call `fob init` with, so that it takes the tokens.
    pub fn init_args(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("init-args")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The library as another program in this process has it: the same instance, where the
    /// library has but one.
    pub fn library(&self) -> Pkcs11 {
        Pkcs11::new(&self.issuing.module).unwrap()
    }

    /// The same, once it is certain that it is the instance that Fob works through.
    pub fn same_instance(&self) -> Pkcs11 {
        let library = self.library();
        let again = library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let same = matches!(
            again,
            Err(Error::Pkcs11(
                RvError::CryptokiAlreadyInitialized,
                Function::Initialize
            ))
        );
        assert!(same, "the library gives another instance to everybody");
        library
    }

    /// Where the issuing token is at the moment.
    pub fn slot(&self, library: &Pkcs11) -> Slot {
        let labelled = |slot: &Slot| {
            library
                .get_token_info(*slot)
                .is_ok_and(|info| info.label() == self.issuing.label)
        };
        let mut slots = library.get_slots_with_token().unwrap().into_iter();
        slots.find(labelled).unwrap()
    }

    /// A session of another program's, logged in.
    pub fn foreign_session(&self) -> Session {
        let library = self.library();
        // A library with one instance is initialised already.
        let _ = library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let session = library.open_rw_session(self.slot(&library)).unwrap();
        match session.login(UserType::User, Some(&self.pin())) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => session,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Messages of many lengths, no two alike.
pub fn messages(count: usize) -> Vec<Vec<u8>> {
    let message = |number: usize| {
        let filling = vec![number as u8; number % 300];
        [number.to_le_bytes().as_slice(), &filling].concat()
    };
    (0..count).map(message).collect()
}

/// Signs and verifies one by one: each signature must belong to its own message.
pub fn sign_and_check(token: &Token, generated: &GeneratedKey, count: usize) {
    let messages = messages(count);
    let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let signatures = match token.sign_all(&generated.key, &slices) {
        Ok(signatures) => signatures,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(signatures.len(), messages.len());
    for (message, signature) in messages.iter().zip(&signatures) {
        assert!(verify_signature(&generated.public, message, signature));
    }
}

//! What to do about a PKCS#11 return value, floor 2: one table for all of them.
//!
//! The names and meanings are those of PKCS#11 v3.1, §5.1. The table says what
//! helps after a call on an open token: what it says of a login is read where
//! the login is made (`session`), because a refused PIN is never tried again.
//! `docs/hsm.md` shows the same table, and a test compares the two.

use cryptoki::error::RvError;

/// What helps after a return value, from the mildest to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// The same call once more, in the same session: it found something busy.
    RetryHere,
    /// New sessions, and with them new handles. Opened in the module as it is,
    /// and if that fails, after the module was initialised anew.
    ReopenSession,
    /// New sessions that log in. Logging out takes private objects and their
    /// handles away (§5.6.9), so a login alone would not be enough.
    LogInAgain,
    /// `C_Finalize`, `C_Initialize` and all that follows: the module has lost
    /// its state or its far end.
    ReloadModule,
    /// Nothing that Fob could do: somebody has to look.
    GiveUp,
}

impl Remedy {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::RetryHere,
        Self::ReopenSession,
        Self::LogInAgain,
        Self::ReloadModule,
        Self::GiveUp,
    ];

    /// The words for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RetryHere => "retry here",
            Self::ReopenSession => "reopen session",
            Self::LogInAgain => "log in again",
            Self::ReloadModule => "reload module",
            Self::GiveUp => "give up",
        }
    }

    /// Whether sessions, login and handles have to be made anew.
    pub(super) const fn renews(self) -> bool {
        matches!(
            self,
            Self::ReopenSession | Self::LogInAgain | Self::ReloadModule
        )
    }
}

macro_rules! table {
    ($($remedy:ident { $($code:ident $name:ident)* })*) => {
        /// What helps after this return value.
        pub(super) const fn remedy(code: RvError) -> Remedy {
            match code {
                $($(RvError::$code)|* => Remedy::$remedy,)*
                // What vendors add is mostly about the way to their devices.
                RvError::VendorDefined(_) => Remedy::ReopenSession,
                RvError::UnknownErrorCode(_) => Remedy::GiveUp,
            }
        }

        #[cfg(test)]
        const TABLE: &[(Remedy, &[(&str, cryptoki_sys::CK_RV, RvError)])] = &[
            $((Remedy::$remedy, &[$((
                stringify!($name),
                cryptoki_sys::$name,
                RvError::$code,
            )),*]),)*
        ];
    };
}

// Some that are not plain. A key is opened only if it may sign, so a token that
// calls it unfit later has lost the object behind the handle. A session in the
// middle of a signature, or out of one, is cured by a fresh session only. A
// general error is what forwarding modules give when their far end is gone, and
// DEVICE_REMOVED is what p11-kit's client says while it is not connected.
table! {
    RetryHere {
        HostMemory CKR_HOST_MEMORY
        DeviceMemory CKR_DEVICE_MEMORY
        FunctionFailed CKR_FUNCTION_FAILED
        FunctionCanceled CKR_FUNCTION_CANCELED
        CantLock CKR_CANT_LOCK
        SessionCount CKR_SESSION_COUNT
    }
    ReopenSession {
        GeneralError CKR_GENERAL_ERROR
        DeviceError CKR_DEVICE_ERROR
        TokenNotPresent CKR_TOKEN_NOT_PRESENT
        TokenNotRecognized CKR_TOKEN_NOT_RECOGNIZED
        SlotIdInvalid CKR_SLOT_ID_INVALID
        SessionHandleInvalid CKR_SESSION_HANDLE_INVALID
        SessionClosed CKR_SESSION_CLOSED
        ObjectHandleInvalid CKR_OBJECT_HANDLE_INVALID
        KeyHandleInvalid CKR_KEY_HANDLE_INVALID
        KeyFunctionNotPermitted CKR_KEY_FUNCTION_NOT_PERMITTED
        KeyTypeInconsistent CKR_KEY_TYPE_INCONSISTENT
        KeyChanged CKR_KEY_CHANGED
        OperationActive CKR_OPERATION_ACTIVE
        OperationNotInitialized CKR_OPERATION_NOT_INITIALIZED
    }
    LogInAgain {
        UserNotLoggedIn CKR_USER_NOT_LOGGED_IN
    }
    ReloadModule {
        CryptokiNotInitialized CKR_CRYPTOKI_NOT_INITIALIZED
        DeviceRemoved CKR_DEVICE_REMOVED
        LibraryLoadFailed CKR_LIBRARY_LOAD_FAILED
        MutexBad CKR_MUTEX_BAD
        MutexNotLocked CKR_MUTEX_NOT_LOCKED
        FipsSelfTestFailed CKR_FIPS_SELF_TEST_FAILED
    }
    GiveUp {
        Cancel CKR_CANCEL
        ArgumentsBad CKR_ARGUMENTS_BAD
        NoEvent CKR_NO_EVENT
        NeedToCreateThreads CKR_NEED_TO_CREATE_THREADS
        AttributeReadOnly CKR_ATTRIBUTE_READ_ONLY
        AttributeSensitive CKR_ATTRIBUTE_SENSITIVE
        AttributeTypeInvalid CKR_ATTRIBUTE_TYPE_INVALID
        AttributeValueInvalid CKR_ATTRIBUTE_VALUE_INVALID
        ActionProhibited CKR_ACTION_PROHIBITED
        DataInvalid CKR_DATA_INVALID
        DataLenRange CKR_DATA_LEN_RANGE
        EncryptedDataInvalid CKR_ENCRYPTED_DATA_INVALID
        EncryptedDataLenRange CKR_ENCRYPTED_DATA_LEN_RANGE
        FunctionNotParallel CKR_FUNCTION_NOT_PARALLEL
        FunctionNotSupported CKR_FUNCTION_NOT_SUPPORTED
        FunctionRejected CKR_FUNCTION_REJECTED
        CurveNotSupported CKR_CURVE_NOT_SUPPORTED
        KeySizeRange CKR_KEY_SIZE_RANGE
        KeyNotNeeded CKR_KEY_NOT_NEEDED
        KeyNeeded CKR_KEY_NEEDED
        KeyIndigestible CKR_KEY_INDIGESTIBLE
        KeyNotWrappable CKR_KEY_NOT_WRAPPABLE
        KeyUnextractable CKR_KEY_UNEXTRACTABLE
        MechanismInvalid CKR_MECHANISM_INVALID
        MechanismParamInvalid CKR_MECHANISM_PARAM_INVALID
        PinIncorrect CKR_PIN_INCORRECT
        PinInvalid CKR_PIN_INVALID
        PinLenRange CKR_PIN_LEN_RANGE
        PinExpired CKR_PIN_EXPIRED
        PinLocked CKR_PIN_LOCKED
        PinTooWeak CKR_PIN_TOO_WEAK
        SessionParallelNotSupported CKR_SESSION_PARALLEL_NOT_SUPPORTED
        SessionReadOnly CKR_SESSION_READ_ONLY
        SessionExists CKR_SESSION_EXISTS
        SessionReadOnlyExists CKR_SESSION_READ_ONLY_EXISTS
        SessionReadWriteSoExists CKR_SESSION_READ_WRITE_SO_EXISTS
        SignatureInvalid CKR_SIGNATURE_INVALID
        SignatureLenRange CKR_SIGNATURE_LEN_RANGE
        TemplateIncomplete CKR_TEMPLATE_INCOMPLETE
        TemplateInconsistent CKR_TEMPLATE_INCONSISTENT
        TokenWriteProtected CKR_TOKEN_WRITE_PROTECTED
        UnwrappingKeyHandleInvalid CKR_UNWRAPPING_KEY_HANDLE_INVALID
        UnwrappingKeySizeRange CKR_UNWRAPPING_KEY_SIZE_RANGE
        UnwrappingKeyTypeInconsistent CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT
        UserAlreadyLoggedIn CKR_USER_ALREADY_LOGGED_IN
        UserPinNotInitialized CKR_USER_PIN_NOT_INITIALIZED
        UserTypeInvalid CKR_USER_TYPE_INVALID
        UserAnotherAlreadyLoggedIn CKR_USER_ANOTHER_ALREADY_LOGGED_IN
        UserTooManyTypes CKR_USER_TOO_MANY_TYPES
        WrappedKeyInvalid CKR_WRAPPED_KEY_INVALID
        WrappedKeyLenRange CKR_WRAPPED_KEY_LEN_RANGE
        WrappingKeyHandleInvalid CKR_WRAPPING_KEY_HANDLE_INVALID
        WrappingKeySizeRange CKR_WRAPPING_KEY_SIZE_RANGE
        WrappingKeyTypeInconsistent CKR_WRAPPING_KEY_TYPE_INCONSISTENT
        RandomSeedNotSupported CKR_RANDOM_SEED_NOT_SUPPORTED
        RandomNoRng CKR_RANDOM_NO_RNG
        DomainParamsInvalid CKR_DOMAIN_PARAMS_INVALID
        BufferTooSmall CKR_BUFFER_TOO_SMALL
        SavedStateInvalid CKR_SAVED_STATE_INVALID
        InformationSensitive CKR_INFORMATION_SENSITIVE
        StateUnsaveable CKR_STATE_UNSAVEABLE
        CryptokiAlreadyInitialized CKR_CRYPTOKI_ALREADY_INITIALIZED
        NewPinMode CKR_NEW_PIN_MODE
        NextOtp CKR_NEXT_OTP
        ExceededMaxIterations CKR_EXCEEDED_MAX_ITERATIONS
        PublicKeyInvalid CKR_PUBLIC_KEY_INVALID
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::error::Rv;

    use super::*;

    #[test]
    fn every_name_is_the_code_it_stands_for() {
        for (of, codes) in TABLE {
            for (name, number, code) in *codes {
                assert_eq!(Rv::from(*number), Rv::Error(*code), "{name}");
                assert_eq!(remedy(*code), *of, "{name}");
            }
        }
        assert_eq!(
            remedy(RvError::VendorDefined(0x8000_0001)),
            Remedy::ReopenSession
        );
    }

    /// What stands in the manual is what the code does.
    #[test]
    fn the_manual_shows_this_table() {
        let manual = include_str!("../../docs/hsm.md");
        for (of, codes) in TABLE {
            let row = manual
                .lines()
                .find(|line| line.starts_with(&format!("| {} |", of.name())))
                .unwrap_or_else(|| panic!("docs/hsm.md has no row for {of:?}"));
            if *of == Remedy::GiveUp {
                assert!(row.contains("every other"), "{row}");
                continue;
            }
            let named: Vec<_> = row
                .split('`')
                .filter(|word| word.starts_with("CKR_"))
                .collect();
            let known: Vec<_> = codes.iter().map(|(name, ..)| *name).collect();
            assert_eq!(named, known, "{row}");
        }
    }
}

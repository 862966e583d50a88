//! How the rotation of the signing keys goes. The part that rotates them writes it; `/readyz` and the
//! metrics read it.

use parking_lot::Mutex;

/// How the rotation of the signing keys goes.
#[derive(Debug, Default)]
pub struct KeyRotation {
    held_up: Mutex<Option<String>>,
}

impl KeyRotation {
    /// Notes why the rotation is held up; `None` if it is not. Returns whether this is another text
    /// than before.
    pub fn note(&self, held_up: Option<String>) -> bool {
        let mut noted = self.held_up.lock();
        let is_other = *noted != held_up;
        *noted = held_up;
        is_other
    }

    /// Why the rotation is held up; `None` if it is not.
    pub fn fault(&self) -> Option<String> {
        self.held_up.lock().clone()
    }
}

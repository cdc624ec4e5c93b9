//! Locks and condition variables: parking_lot's, or the model's.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Scheduler, key_of, turn};

/// A lock: parking_lot's, or the model's.
pub enum Mutex<T> {
    Real(parking_lot::Mutex<T>),
    Model(shuttle::sync::Mutex<T>),
}

pub enum MutexGuard<'a, T> {
    Real(parking_lot::MutexGuard<'a, T>),
    /// `None` while a condition variable waits.
    Model(&'a shuttle::sync::Mutex<T>, Option<shuttle::sync::MutexGuard<'a, T>>),
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Mutex<T> {
        match turn() {
            None => Mutex::Real(parking_lot::Mutex::new(value)),
            Some(_) => Mutex::Model(shuttle::sync::Mutex::new(value)),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        match self {
            Mutex::Real(lock) => MutexGuard::Real(lock.lock()),
            Mutex::Model(lock) => {
                MutexGuard::Model(lock, Some(lock.lock().unwrap_or_else(PoisonError::into_inner)))
            }
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex { .. }")
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            MutexGuard::Real(guard) => guard,
            MutexGuard::Model(_, guard) => guard.as_deref().expect("no condition waits"),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match self {
            MutexGuard::Real(guard) => guard,
            MutexGuard::Model(_, guard) => guard.as_deref_mut().expect("no condition waits"),
        }
    }
}

/// A condition variable: parking_lot's, or the model's.
pub enum Condvar {
    Real(parking_lot::Condvar),
    /// The number of notifications so far.
    Model(Arc<Scheduler>, Arc<AtomicU64>),
}

impl Condvar {
    pub fn new() -> Condvar {
        match turn() {
            None => Condvar::Real(parking_lot::Condvar::new()),
            Some(turn) => Condvar::Model(turn, Arc::default()),
        }
    }

    pub fn notify_all(&self) {
        match self {
            Condvar::Real(changed) => {
                changed.notify_all();
            }
            Condvar::Model(turn, notified) => {
                turn.change(key_of(notified), || {
                    notified.fetch_add(1, Ordering::Relaxed);
                });
            }
        }
    }

    pub fn wait_while<T>(&self, guard: &mut MutexGuard<'_, T>, condition: impl FnMut(&mut T) -> bool) {
        self.wait(guard, condition, None);
    }

    pub fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        condition: impl FnMut(&mut T) -> bool,
        patience: Duration,
    ) {
        self.wait(guard, condition, Some(patience));
    }

    fn wait<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        patience: Option<Duration>,
    ) {
        match (self, guard) {
            (Condvar::Real(changed), MutexGuard::Real(guard)) => match patience {
                Some(patience) => {
                    changed.wait_while_for(guard, condition, patience);
                }
                None => changed.wait_while(guard, condition),
            },
            (Condvar::Model(turn, notified), MutexGuard::Model(lock, slot)) => {
                while slot.as_deref_mut().is_some_and(&mut condition) {
                    let seen = notified.load(Ordering::Relaxed);
                    *slot = None;
                    let woken = turn.when(&[key_of(notified)], patience, || {
                        (notified.load(Ordering::Relaxed) != seen).then_some(())
                    });
                    *slot = Some(lock.lock().unwrap_or_else(PoisonError::into_inner));
                    if woken.is_err() {
                        return;
                    }
                }
            }
            _ => unreachable!("a lock and its condition are of one world"),
        }
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condvar { .. }")
    }
}

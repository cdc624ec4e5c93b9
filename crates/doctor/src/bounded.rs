//! Observations with an end: a disk or a resolver that hangs must not hang the doctor.

use std::time::Duration;

use recado_sys::clock::MachineClock;
use recado_sys::sync::channel;
use recado_sys::threads::spawn_named;

/// Makes all observations at once, each on a thread of its own, and returns their results in their order:
/// none for one that has taken longer than `patience`. Its thread ends with the process.
pub fn all<T: Send + 'static>(
    patience: Duration,
    observations: Vec<Box<dyn FnOnce() -> T + Send>>,
) -> Vec<Option<T>> {
    let count = observations.len();
    let mut results: Vec<Option<T>> = Vec::new();
    results.resize_with(count, || None);
    let (tell, told) = channel::bounded(count.max(1));
    for (at, observation) in observations.into_iter().enumerate() {
        let tell = tell.clone();
        // Without a thread left there is no result.
        let _ = spawn_named("observation", move || {
            // Nobody waits for one that is late.
            let _ = tell.send((at, observation()));
        });
    }
    drop(tell);
    let clock = MachineClock::start();
    let begun = clock.now();
    while let Some(left) = patience.checked_sub(clock.now().since(begun))
        && let Ok((at, result)) = told.recv_timeout(left)
    {
        if let Some(place) = results.get_mut(at) {
            *place = Some(result);
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_order_of_the_observations_and_one_that_hangs_has_none() {
        let (open, shut) = channel::bounded::<()>(1);
        let hangs = shut.clone();
        let second: Box<dyn FnOnce() -> u8 + Send> = Box::new(move || {
            let _ = hangs.recv();
            2
        });
        let found = all(Duration::from_millis(300), vec![Box::new(|| 1), second, Box::new(|| 3)]);
        assert_eq!(found, [Some(1), None, Some(3)]);
        drop(open);
        let quick: Box<dyn FnOnce() -> u8 + Send> = Box::new(|| 1);
        assert_eq!(all(Duration::from_secs(60), vec![quick]), [Some(1)]);
        assert_eq!(all::<u8>(Duration::from_secs(60), vec![]), []);
    }
}

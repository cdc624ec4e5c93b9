//! The result of a measurement: a short table for people, one JSON object for programs.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::ledger::Checks;
use crate::process::Used;

/// The result of a measurement.
#[derive(Debug)]
pub(crate) struct Report {
    /// The command.
    pub(crate) command: &'static str,
    /// What was measured.
    pub(crate) broker: String,
    /// The parameters, as given or by default.
    pub(crate) parameters: Vec<(&'static str, Value)>,
    /// The measured time.
    pub(crate) measured: Duration,
    /// What counts as one operation, and how many there were in the measured time.
    pub(crate) operations: (&'static str, u64),
    /// Rates, a second.
    pub(crate) rates: Vec<(&'static str, f64)>,
    /// Latencies in us.
    pub(crate) latencies: Vec<(&'static str, Histogram<u64>)>,
    /// Single times.
    pub(crate) times: Vec<(&'static str, Duration)>,
    /// Single counts.
    pub(crate) counts: Vec<(&'static str, u64)>,
    /// Shares, from 0 to 1.
    pub(crate) shares: Vec<(&'static str, f64)>,
    /// What was lost, repeated or reordered.
    pub(crate) checks: Checks,
    /// What each process used.
    pub(crate) used: Vec<Used>,
    /// The allocations of this process.
    pub(crate) allocations: u64,
}

impl Report {
    /// A report without figures.
    pub(crate) fn new(
        command: &'static str,
        broker: String,
        measured: Duration,
        operations: (&'static str, u64),
    ) -> Report {
        Report {
            command,
            broker,
            parameters: Vec::new(),
            measured,
            operations,
            rates: Vec::new(),
            latencies: Vec::new(),
            times: Vec::new(),
            counts: Vec::new(),
            shares: Vec::new(),
            checks: Checks::default(),
            used: Vec::new(),
            allocations: 0,
        }
    }

    /// Returns true if nothing was lost, repeated or reordered.
    pub(crate) fn is_clean(&self) -> bool {
        self.checks == Checks::default()
    }

    fn per_operation(&self, amount: f64) -> f64 {
        amount / (self.operations.1.max(1) as f64)
    }

    /// The report as one JSON object. Times have their unit in their name.
    pub(crate) fn json(&self) -> Value {
        let object = |pairs: Vec<(String, Value)>| Value::Object(pairs.into_iter().collect::<Map<_, _>>());
        let latencies = self.latencies.iter().map(|(name, histogram)| {
            let at = |quantile| histogram.value_at_quantile(quantile);
            let value = json!({
                "count": histogram.len(), "mean": rounded(histogram.mean()), "p50": at(0.5), "p99": at(0.99),
                "p99.9": at(0.999), "max": histogram.max(),
            });
            ((*name).to_owned(), value)
        });
        let used = self.used.iter().map(|used| {
            json!({
                "name": used.name,
                "cpu_s": rounded(used.cpu_s),
                "cores": rounded(used.cpu_s / self.measured.as_secs_f64()),
                "cpu_us_per_operation": rounded(self.per_operation(used.cpu_s * 1e6)),
                "peak_rss_kib": used.peak_rss_kib,
                "allocations_per_operation":
                    used.allocations.map(|allocations| rounded(self.per_operation(allocations as f64))),
            })
        });
        let Checks { lost, repeated, reordered } = self.checks;
        json!({
            "command": self.command,
            "broker": self.broker,
            "parameters":
                object(self.parameters.iter().map(|(name, value)| ((*name).into(), value.clone())).collect()),
            "measured_s": rounded(self.measured.as_secs_f64()),
            "operation": self.operations.0,
            "operations": self.operations.1,
            "per_second":
                object(self.rates.iter().map(|(name, rate)| ((*name).into(), json!(rounded(*rate)))).collect()),
            "latency_us": object(latencies.collect()),
            "times_ms": object(
                self.times
                    .iter()
                    .map(|(name, time)| ((*name).into(), json!(rounded(time.as_secs_f64() * 1e3))))
                    .collect()
            ),
            "counts": object(self.counts.iter().map(|(name, count)| ((*name).into(), json!(count))).collect()),
            "shares": object(
                self.shares.iter().map(|(name, share)| ((*name).into(), json!(rounded(*share)))).collect()
            ),
            "checks": { "lost": lost, "repeated": repeated, "reordered": reordered },
            "processes": used.collect::<Vec<_>>(),
            "client_allocations_per_operation": rounded(self.per_operation(self.allocations as f64)),
        })
    }

    /// The report as a table of at most 80 columns.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let parameters: Vec<String> =
            self.parameters.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
        let _ = writeln!(text, "{} of {}: {}", self.command, self.broker, parameters.join(", "));
        for (name, rate) in &self.rates {
            let _ = writeln!(text, "  {name:<28} {:>12} /s", grouped(*rate));
        }
        for (name, time) in &self.times {
            let _ = writeln!(text, "  {name:<28} {:>12} ms", format!("{:.1}", time.as_secs_f64() * 1e3));
        }
        for (name, count) in &self.counts {
            let _ = writeln!(text, "  {name:<28} {count:>12}");
        }
        for (name, share) in &self.shares {
            let _ = writeln!(text, "  {name:<28} {:>12} %", format!("{:.1}", share * 1e2));
        }
        if !self.latencies.is_empty() {
            let columns = ["p50", "p99", "p99.9", "max"].map(|column| format!("{column:>10}")).concat();
            let _ = writeln!(text, "  {:<28}{columns}", "latency, us");
        }
        for (name, histogram) in &self.latencies {
            let quantiles = [0.5, 0.99, 0.999, 1.0].map(|quantile| {
                let value = histogram.value_at_quantile(quantile);
                format!("{:>10}", grouped(value as f64))
            });
            let _ = writeln!(text, "  {name:<28}{}", quantiles.concat());
        }
        if !self.used.is_empty() {
            let unit = format!("CPU us/{}", self.operations.0);
            let _ = writeln!(text, "  {:<28}{unit:>20}{:>10}{:>14}", "process", "cores", "peak MiB");
        }
        for used in &self.used {
            let _ = writeln!(
                text,
                "  {:<28}{:>20.2}{:>10.2}{:>14.1}",
                used.name,
                self.per_operation(used.cpu_s * 1e6),
                used.cpu_s / self.measured.as_secs_f64(),
                used.peak_rss_kib as f64 / 1024.0,
            );
        }
        let of_servers = self.used.iter().filter_map(|used| Some((used.name.as_str(), used.allocations?)));
        for (name, allocations) in of_servers.chain([("client", self.allocations)]) {
            let name = format!("allocations/{}, {name}", self.operations.0);
            let _ = writeln!(text, "  {name:<32}{:>16.1}", self.per_operation(allocations as f64));
        }
        let Checks { lost, repeated, reordered } = self.checks;
        let _ = writeln!(text, "  {lost} lost, {repeated} repeated, {reordered} out of order");
        text
    }
}

/// To three digits after the point, so that a report is readable.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value);
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (value, text) in [(0.0, "0"), (999.0, "999"), (1_000.4, "1,000"), (12_345_678.0, "12,345,678")] {
            assert_eq!(grouped(value), text);
        }
    }
}

//! Compares the time that a stop takes with the time that a service manager waits for it.

use std::env::var_os;

use crate::config::Config;

/// Returns a warning if the server may take so long to stop that it would be killed first: by
/// systemd with the shipped unit or, in a container, by Kubernetes with the shipped Deployment.
pub(super) fn warning(config: &Config) -> Option<String> {
    let drain = config.startup.limits.drain_seconds;
    let seconds = config.live.shutdown_delay_seconds.saturating_add(drain);
    // Kubernetes sets this variable in every container.
    let is_in_kubernetes = var_os("KUBERNETES_SERVICE_HOST").is_some();
    let (setting, shipped) = if is_in_kubernetes { KUBERNETES } else { SYSTEMD };
    (seconds >= shipped).then(|| {
        format!(
            "shutdown_delay_seconds: a stop takes up to {seconds} seconds, limits.drain_seconds \
             ({drain}) included: {setting} must be longer; as shipped, it is {shipped}"
        )
    })
}

/// The setting of the shipped `systemd/grantd.service` and its value in seconds.
const SYSTEMD: (&str, u64) = ("TimeoutStopSec of the unit", 20);
/// The setting of the shipped `kubernetes/deployment.yaml` and its value in seconds.
const KUBERNETES: (&str, u64) = ("terminationGracePeriodSeconds of the pod", 40);

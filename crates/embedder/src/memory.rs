//! The program's memory: its limit, its resident size, and its OOM score.

use std::fs;

/// Added to the badness of the process when the kernel is out of memory. The maximum makes the kernel kill this
/// program before any session.
#[cfg(target_os = "linux")]
const OOM_SCORE_ADJ: &str = "1000";

/// Makes the kernel kill this program before any process of PostgreSQL when memory runs out.
pub fn volunteer_for_the_oom_killer() {
    // A failure is ignored: the kernel then judges by size alone.
    #[cfg(target_os = "linux")]
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
}

/// Limits the memory this program may allocate. Beyond it an allocation fails, which ends the program. None is no
/// limit.
pub fn limit(bytes: Option<u64>) -> std::io::Result<()> {
    // Private writable memory (RLIMIT_DATA), because the address space would include what is only reserved.
    let resource = libc::RLIMIT_DATA;
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to the place given to it.
    if unsafe { libc::getrlimit(resource, &mut now) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let wanted = bytes.map_or(libc::RLIM_INFINITY, |bytes| bytes as libc::rlim_t);
    // Only the soft limit, so that a later setting can raise it.
    now.rlim_cur = wanted.min(now.rlim_max);
    // SAFETY: reads the place given to it.
    match unsafe { libc::setrlimit(resource, &now) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The resident bytes of this program; none where the operating system does not report them.
pub fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: the call takes a number only.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    Some(pages * page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_running_program_is_resident() {
        assert!(resident().is_some_and(|bytes| bytes > 100_000));
    }
}

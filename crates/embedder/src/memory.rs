//! How much memory the program may take, how much it takes, and how willingly the kernel takes it back.

use std::fs;

/// What the kernel adds to the badness of a process when it is out of memory: with the most there is, it ends this program
/// before any session.
#[cfg(target_os = "linux")]
const OOM_SCORE_ADJ: &str = "1000";

/// Makes the kernel end this program before any process of PostgreSQL when memory runs out.
pub fn volunteer_for_the_oom_killer() {
    // Without it the kernel judges by size alone, and the embedder serves all the same.
    #[cfg(target_os = "linux")]
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
}

/// Bounds the memory this program may ask for: beyond it an allocation fails, and with it the program. None is no bound.
pub fn limit(bytes: Option<u64>) -> std::io::Result<()> {
    // Private writable memory: the address space would count what is only reserved.
    let resource = libc::RLIMIT_DATA;
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to the place given to it.
    if unsafe { libc::getrlimit(resource, &mut now) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let wanted = bytes.map_or(libc::RLIM_INFINITY, |bytes| bytes as libc::rlim_t);
    // Only the soft limit, so that a later setting may raise it again.
    now.rlim_cur = wanted.min(now.rlim_max);
    // SAFETY: reads the place given to it.
    match unsafe { libc::setrlimit(resource, &now) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Bytes of this program's memory that are resident; none where the operating system does not tell.
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

//! Keeps the allocator's memory close to what is in use.

#![allow(unsafe_code, reason = "mallopt is a C function")]

/// Limits glibc to two arenas. Each keeps freed memory for itself, and with one per thread
/// (the default: eight per CPU) a process that moves large buffers between threads holds
/// several times what it uses.
pub(super) fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes two integers, is thread-safe, and reports what it cannot do.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 2);
        }
    }
}

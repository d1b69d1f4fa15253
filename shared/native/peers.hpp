// peers.hpp - who of those that share a structure lives: each holds a lock that the kernel frees at any death.
//
// An owner number n is byte FIRST_BYTE + n of a lock file, held by an OFD record lock. Who takes which number is said
// elsewhere (shared/lob/rings.py; lob-publish's work.hpp); here the kernel is asked. A stopped process holds its locks and lives. An answer holds for
// ever only if it is "dead" and nobody takes the number again, which fixed_queue.hpp allows for.
// One number a file descriptor: the kernel does not tell an open file of its own locks.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>

namespace lob {

inline constexpr std::uint32_t OWNER_MAX = 127;

// Threads of one process die together: nobody is left to ask.
struct AllLive {
    bool operator()(std::uint32_t) const noexcept { return true; }
};

class LockedPeers {
public:
    static constexpr off_t FIRST_BYTE = 64;  // the bytes before are the roles'

    // The descriptor stays the caller's.
    explicit LockedPeers(int lock_fd) : fd_(lock_fd) {}

    // Also true if the kernel cannot say: a slot is rather lost than stolen.
    bool operator()(std::uint32_t owner) const noexcept {
        struct flock ask = lock_of(owner);
        return fcntl(fd_, F_OFD_GETLK, &ask) != 0 || ask.l_type != F_UNLCK;
    }
    // The number for this open file; false: somebody has it.
    bool take(std::uint32_t owner) const noexcept {
        struct flock lock = lock_of(owner);
        return fcntl(fd_, F_OFD_SETLK, &lock) == 0;
    }

private:
    static struct flock lock_of(std::uint32_t owner) noexcept {
        struct flock lock {};
        lock.l_type = F_WRLCK;
        lock.l_whence = SEEK_SET;
        lock.l_start = FIRST_BYTE + static_cast<off_t>(owner);
        lock.l_len = 1;
        return lock;
    }

    int fd_;
};

}  // namespace lob

// pages.hpp - how the pages of a mapped file of tmpfs lie: so that huge pages fit, huge, locked, on one NUMA node.
//
// A huge page of tmpfs is mapped as one only where file offset and address agree modulo 2 MiB and the mapping holds all of it.
// So every mapping begins at a multiple of 2 MiB and reaches to the next one beyond the file's end; whoever maps a file whose
// pages are huge, writer or reader, has them huge then, without asking. Nobody touches what lies beyond the file's end.
//
// Nothing is decided here: each step returns errno, 0 if it was done, and shared/lob/memory.py looks what came of it.
#pragma once

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace lob {

inline constexpr std::uint64_t HUGE_PAGE_BYTES = 2 << 20;
inline constexpr unsigned NUMA_NODES_MAX = 1024;  // what a kernel can be built for
#if defined(MADV_COLLAPSE)
inline constexpr int COLLAPSE = MADV_COLLAPSE;
#else
inline constexpr int COLLAPSE = 25;  // Linux 6.1; older headers do not know it
#endif

class Pages {
public:
    Pages() = default;
    ~Pages() {
        if (base_ != nullptr) munmap(base_, mapped_);
    }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    // Maps the first `bytes` of a file, shared; once. `populate`: page tables and all.
    int map(int fd, std::uint64_t bytes, bool writable, bool populate) {
        const std::uint64_t mapped = (bytes + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        // Room for any shift to the next multiple; what is not needed goes back.
        const std::uint64_t room = mapped + HUGE_PAGE_BYTES;
        void* reserved = mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (reserved == MAP_FAILED) return errno;
        auto* from = static_cast<std::byte*>(reserved);
        const auto start = reinterpret_cast<std::uintptr_t>(from);
        std::byte* aligned = from + ((start + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES - start);
        const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
        const int flags = MAP_SHARED | MAP_FIXED | (populate ? MAP_POPULATE : 0);
        if (mmap(aligned, mapped, protection, flags, fd, 0) == MAP_FAILED) {
            const int error = errno;
            munmap(reserved, room);
            return error;
        }
        if (aligned != from) munmap(from, static_cast<std::size_t>(aligned - from));
        if (std::byte* end = aligned + mapped; end != from + room) munmap(end, static_cast<std::size_t>(from + room - end));
        base_ = aligned;
        bytes_ = bytes;
        mapped_ = mapped;
        return 0;
    }

    std::byte* base() const { return base_; }
    std::uint64_t bytes() const { return bytes_; }

    // The file's pages become huge ones, for all who map it, whatever they hold and whoever works in them meanwhile.
    // Unlike a page fault, MADV_COLLAPSE asks neither shmem_enabled (but for `deny`) nor the mount's huge= option, and it
    // takes files whose space is there already. The advice before it is for khugepaged, where shmem_enabled lets it work.
    int make_huge() {
        madvise(base_, mapped_, MADV_HUGEPAGE);
        huge_ = madvise(base_, mapped_, COLLAPSE) == 0;
        return huge_ ? 0 : errno;
    }

    // Our page tables keep all of it. Beyond the file's end there is no page to lock; but a huge page there is locked whole,
    // because a lock that ends inside it would cut the mapping in two, and it into small ones.
    int lock() const { return mlock(base_, huge_ ? mapped_ : bytes_) == 0 ? 0 : errno; }

    // tmpfs keeps the policy with the file: pages taken from now on, by whomever, are of that node; ours of another move there.
    int bind(unsigned node) const {
        constexpr unsigned BITS = 8 * sizeof(unsigned long);
        if (node >= NUMA_NODES_MAX) return EINVAL;
        unsigned long nodes[NUMA_NODES_MAX / BITS] = {};
        nodes[node / BITS] = 1ul << node % BITS;
        // The kernel reads one bit less than it is told.
        return syscall(SYS_mbind, base_, mapped_, MPOL_BIND, nodes, NUMA_NODES_MAX + 1, MPOL_MF_MOVE) == 0 ? 0 : errno;
    }

private:
    std::byte* base_ = nullptr;
    std::uint64_t bytes_ = 0;
    std::uint64_t mapped_ = 0;
    bool huge_ = false;
};

}  // namespace lob

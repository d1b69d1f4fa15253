// atomics.hpp - which atomics the rings are built from.
//
// Every ring is a template over a policy like StdAtomics, so that a model checker or a sanitizer build can
// put its own in place and run the same source. FenceFreeAtomics serves ThreadSanitizer, which does not
// model stand-alone fences: it turns each fence into a read-modify-write on a word of its own.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace lob {

// A struct seen as words. Records and board entries are copied word by word and read by field: without may_alias the
// optimizer takes a word and a field of another width for different memory, and may move one across the other.
using Word = std::uint64_t __attribute__((may_alias));

struct StdAtomics {
    template <class T>
    using atomic = std::atomic<T>;
    static void fence(std::memory_order order) noexcept { std::atomic_thread_fence(order); }
    // A word of a payload that another process may be overwriting: relaxed, so a torn copy is no data race.
    static std::uint64_t load_word(const Word* word) noexcept { return __atomic_load_n(word, __ATOMIC_RELAXED); }
    static void store_word(Word* word, std::uint64_t value) noexcept { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
    // Said where plain memory is touched first and last by whoever owns it just then; a model checker looks for races.
    static void writes(const void*, std::size_t) noexcept {}
    static void reads(const void*, std::size_t) noexcept {}
};

struct FenceFreeAtomics : StdAtomics {
    static void fence(std::memory_order) noexcept {
        static std::atomic<std::uint64_t> order_point{0};
        order_point.fetch_add(1, std::memory_order_seq_cst);
    }
    static std::uint64_t load_word(const Word* word) noexcept { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static void store_word(Word* word, std::uint64_t value) noexcept { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "a lock would live in one process");
static_assert(sizeof(std::atomic<std::uint64_t>) == 8 && sizeof(std::atomic<std::uint32_t>) == 4);

#if defined(__SANITIZE_THREAD__)
#define LOB_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LOB_UNDER_TSAN 1
#endif
#endif

#if defined(LOB_UNDER_TSAN)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"  // StdAtomics::fence is compiled then, but called by nobody
#endif
using DefaultAtomics = FenceFreeAtomics;
#else
using DefaultAtomics = StdAtomics;
#endif

}  // namespace lob

// relacy_atomics.hpp - the atomics policy under which Relacy runs the rings' own source.
//
// The rings lie in real memory, laid out as always; an atomic is known by its address. For each word that matters there is
// a shadow that Relacy simulates (rl::atomic: stale values, reordering; rl::var: races of plain memory); other words are
// plain. Nothing in shared/native is changed or copied, and a seeded mistake is made here, in the policy: an ordering that is
// weakened at one word, a fence that is not there, a store that is left out. So each mistake is one that somebody could make
// in one line of the ring.
#pragma once

#define LOB_TINY_RINGS
#include <sys/mman.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <source_location>
#include <vector>

#include "broadcast.hpp"
#include "fixed_queue.hpp"
#include "seqlock.hpp"
#include "spsc.hpp"

// After the rings: it defines names like `new` and `memory_order_relaxed` as macros.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#include <relacy/relacy.hpp>
#pragma GCC diagnostic pop
#undef new
#undef delete
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef assert
#undef errno
#undef memory_order_relaxed
#undef memory_order_consume
#undef memory_order_acquire
#undef memory_order_release
#undef memory_order_acq_rel
#undef memory_order_seq_cst

// Relacy replaces new and delete and forgets the sized one.
void operator delete(void* memory, std::size_t) noexcept { ::operator delete(memory); }
void operator delete[](void* memory, std::size_t) noexcept { ::operator delete[](memory); }

namespace lob::model {

using Where = std::source_location;
inline rl::debug_info at(const Where& where) { return {where.function_name(), where.file_name(), where.line()}; }

// What is wrong in this run. `offset` counts from the start of the memory under test.
struct Mistake {
    const char* name = "none";
    enum Kind { none, weak_store, weak_load, no_fence, no_store, one_checkpoint, lowered_intent, one_bit, all_dead, all_live, no_adoption } kind = none;
    std::uint64_t offset = 0;
    std::memory_order fence = std::memory_order_relaxed;
    int thread = -1;  // whose fence; -1: everybody's
};
inline Mistake mistake;

// A writer or reader that is killed: thrown instead of a store.
struct Killed {};

// The memory under test, and the shadows of its words. One at a time, made anew in each iteration.
class World {
public:
    static constexpr std::size_t BYTES = 1 << 15;  // of the part that may be watched
    static constexpr std::size_t MOST = 128;

    World() { now = this; }
    ~World() { now = nullptr; }
    World(const World&) = delete;

    // In before(): from now on the 8-byte words from `first` on are simulated, beginning with what they hold.
    void watch(const void* first, std::size_t words = 1) { add(first, words, 8, atomic_of_); }
    void watch_flag(const void* flag) { add(flag, 1, 4, atomic_of_); }  // of 4 bytes
    // ... as plain memory, where only races are looked for.
    void watch_plain(const void* first, std::size_t words) { add(first, words, 8, plain_of_); }

    static rl::atomic<std::uint64_t>* atomic_of(const volatile void* word) { return find(word, &World::atomic_of_, &World::atomics_); }
    static rl::var<int>* plain_of(const volatile void* word) { return find(word, &World::plain_of_, &World::plains_); }
    static std::uint64_t offset_of(const volatile void* word) {
        return static_cast<std::uint64_t>(static_cast<const volatile std::byte*>(word) - base);
    }

    // Where a word's shadow is noted: the manifest between header and data is left out.
    static std::size_t place_of(const volatile void* word) {
        const std::uint64_t offset = offset_of(word);
        return (offset < MANIFEST_OFFSET ? offset : offset - MANIFEST_BYTES) / 4;
    }

    // The thread's stores are counted from now on; it dies instead of the n-th.
    void kill_at(int n) { stores_left_ = n, victim_ = static_cast<int>(rl::ctx().current_thread()); }
    void spare() { victim_ = -1; }
    static void about_to_store() {
        if (now == nullptr || now->victim_ != static_cast<int>(rl::ctx().current_thread())) return;
        if (now->stores_left_-- == 0) {
            now->victim_ = -1;
            throw Killed{};
        }
    }

    static inline std::byte* base = nullptr;
    static inline World* now = nullptr;

private:
    using Index = std::array<std::uint8_t, BYTES / 4>;

    void add(const void* first, std::size_t words, std::size_t width, Index& index) {
        for (std::size_t i = 0; i < words; ++i) {
            const auto* word = static_cast<const std::byte*>(first) + width * i;
            const std::size_t slot = ++used_;
            if (slot >= MOST || place_of(word) >= index.size()) std::abort();
            index[place_of(word)] = static_cast<std::uint8_t>(slot);
            if (&index == &plain_of_) {
                plains_[slot].emplace();
                (*plains_[slot])(at(Where::current())).store(0);
            } else {
                std::uint64_t value = 0;
                std::memcpy(&value, word, width);
                atomics_[slot].emplace();
                atomics_[slot]->store(value, rl::mo_relaxed, at(Where::current()));
            }
        }
    }
    template <class T>
    static T* find(const volatile void* word, Index World::*index, std::array<std::optional<T>, MOST> World::*shadows) {
        if (now == nullptr || place_of(word) >= (now->*index).size()) return nullptr;
        const std::size_t slot = (now->*index)[place_of(word)];
        return slot == 0 ? nullptr : &*(now->*shadows)[slot];
    }

    Index atomic_of_{}, plain_of_{};
    std::array<std::optional<rl::atomic<std::uint64_t>>, MOST> atomics_;
    std::array<std::optional<rl::var<int>>, MOST> plains_;
    std::size_t used_ = 0;
    int victim_ = -1;
    int stores_left_ = 0;
};

inline rl::memory_order order_of(std::memory_order order) {
    switch (order) {
    case std::memory_order_relaxed: return rl::mo_relaxed;
    case std::memory_order_consume: return rl::mo_consume;
    case std::memory_order_acquire: return rl::mo_acquire;
    case std::memory_order_release: return rl::mo_release;
    case std::memory_order_acq_rel: return rl::mo_acq_rel;
    default: return rl::mo_seq_cst;
    }
}
inline rl::memory_order order_at(const volatile void* word, std::memory_order order, Mistake::Kind weak) {
    const bool wrong = mistake.kind == weak && mistake.offset == World::offset_of(word);
    return wrong ? rl::mo_relaxed : order_of(order);
}

template <class T>
class Atomic {
public:
    T load(std::memory_order order = std::memory_order_seq_cst, Where where = Where::current()) const {
        const auto* word = aliased();
        if (auto* shadow = World::atomic_of(word)) return static_cast<T>(shadow->load(order_at(word, order, Mistake::weak_load), at(where)));
        return value_;
    }
    void store(T value, std::memory_order order = std::memory_order_seq_cst, Where where = Where::current()) {
        auto* word = const_cast<Atomic*>(aliased());
        auto* shadow = World::atomic_of(word);
        if (shadow == nullptr) {
            value_ = value;
            return;
        }
        if (sizeof(T) == 8) World::about_to_store();  // not the flags of sleepers: noexcept, and no more than a lost wake-up
        if (mistake.kind == Mistake::no_store && mistake.offset == World::offset_of(word)) return;
        shadow->store(static_cast<std::uint64_t>(value), order_at(word, order, Mistake::weak_store), at(where));
    }
    bool compare_exchange_strong(T& expected, T desired, std::memory_order order, Where where = Where::current()) {
        if (auto* shadow = World::atomic_of(this)) {
            std::uint64_t seen = static_cast<std::uint64_t>(expected);
            if (sizeof(T) == 4 && mistake.kind == Mistake::one_bit) desired = 0;  // the word of sleepers does not count
            const bool weak = mistake.offset == World::offset_of(this) &&
                              ((mistake.kind == Mistake::weak_store && order == std::memory_order_release) ||
                               (mistake.kind == Mistake::weak_load && order == std::memory_order_acquire));
            const bool done = shadow->compare_exchange(rl::bool_t<false>(), seen, static_cast<std::uint64_t>(desired),
                                                       weak ? rl::mo_relaxed : order_of(order), at(where));
            expected = static_cast<T>(seen);
            return done;
        }
        if (value_ != expected) return expected = value_, false;
        return value_ = desired, true;
    }
    T fetch_add(T n, std::memory_order order, Where where = Where::current()) {
        if (auto* shadow = World::atomic_of(this)) return static_cast<T>(shadow->fetch_add(n, order_of(order), at(where)));
        return std::exchange(value_, value_ + n);
    }

    T fetch_or(T bits, std::memory_order order, Where where = Where::current()) {
        if (auto* shadow = World::atomic_of(this)) return static_cast<T>(shadow->fetch_or(bits, order_of(order), at(where)));
        return std::exchange(value_, value_ | bits);
    }

private:
    // Under `one_checkpoint` the second place is the first one.
    const Atomic* aliased() const {
        constexpr std::uint64_t first = offsetof(Header, checkpoint), size = sizeof(Checkpoint<StdAtomics>);
        const std::uint64_t offset = World::offset_of(this);
        if (mistake.kind == Mistake::one_checkpoint && offset >= first + size && offset < first + 2 * size)
            return reinterpret_cast<const Atomic*>(reinterpret_cast<const std::byte*>(this) - size);
        return this;
    }
    T value_;
};

// The kernel's half of wait.hpp: it compares with the newest value, and nobody is woken by time. So a wake-up that is
// lost is a deadlock, which Relacy reports.
template <class T>
void futex_wait(Atomic<T>* word, std::uint32_t expected, std::int64_t) {
    auto* shadow = World::atomic_of(word);
    shadow->load(rl::mo_relaxed, at(Where::current()));
    if (shadow->debug_value() != expected) return;
    shadow->wait(rl::ctx(), false, false, at(Where::current()));
}
template <class T>
void futex_wake_all(Atomic<T>* word) {
    World::atomic_of(word)->wake(rl::ctx(), 1000, at(Where::current()));
}

struct RelacyAtomics {
    template <class T>
    using atomic = Atomic<T>;

    static void fence(std::memory_order order, Where where = Where::current()) {
        if (mistake.kind == Mistake::no_fence && mistake.fence == order &&
            (mistake.thread == -1 || mistake.thread == static_cast<int>(rl::ctx().current_thread())))
            return;
        rl::atomic_thread_fence(order_of(order), at(where));
    }
    static std::uint64_t load_word(const Word* word, Where where = Where::current()) {
        if (auto* shadow = World::atomic_of(word)) return shadow->load(rl::mo_relaxed, at(where));
        return *word;
    }
    static void store_word(Word* word, std::uint64_t value, Where where = Where::current()) {
        auto* shadow = World::atomic_of(word);
        if (shadow == nullptr) {
            *word = value;
            return;
        }
        World::about_to_store();
        shadow->store(value, rl::mo_relaxed, at(where));
    }
    static void writes(const void* first, std::size_t bytes, Where where = Where::current()) {
        for (std::size_t i = 0; i < bytes; i += 8)
            if (auto* plain = World::plain_of(static_cast<const std::byte*>(first) + i)) (*plain)(at(where)).store(1);
    }
    static void reads(const void* first, std::size_t bytes, Where where = Where::current()) {
        for (std::size_t i = 0; i < bytes; i += 8)
            if (auto* plain = World::plain_of(static_cast<const std::byte*>(first) + i)) static_cast<void>((*plain)(at(where)).load());
    }
};

// A claim of the test itself.
inline void expect(bool condition, const char* what, Where where = Where::current()) {
    if (!condition) rl::ctx().fail_test(what, rl::test_result_user_assert_failed, at(where));
}

}  // namespace lob::model

// pool.hpp - objects that are made once and handed out again and again: no allocation after the start, and a limit.
//
// Each thread has a cache of its own; it takes and gives batches from and to a shared reserve, so what threads touch together
// is touched once in BATCH objects. An object may be given back by another thread than took it.
//
// Shape      objects[limit]; next[i] links the objects of a batch, below[i] the batches of the reserve, by index.
//            reserve = tag << 32 | first object of the topmost batch; the tag rises with every change.
// Invariant  each object is in exactly one place: in use, in one cache, or in one batch of the reserve.
// Ordering   P1 CAS reserve release   pairs with P2: who takes a batch sees its links, and what the last owner did with
//            P2 CAS reserve acquire   its objects. Every change of `reserve` is a read-modify-write, so a batch that lies
//                                     deeper is still in the release sequence of the push that put it there.
//            below[i] is read before the CAS that makes it count: a relaxed atomic; the tag tells if it is out of date.
// Limit      take() gives null when the reserve is empty, counted. Objects in other threads' caches are out of reach then:
//            at most 2 * BATCH - 1 a cache, which a limit must allow for.
// Counters   exact when nobody is at work; high_water counts in batches: the most that was ever away from the reserve.
// Not for    shared memory (a killed process would take its cache with it), or objects that differ in size.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>

namespace lob {

template <class T, std::uint32_t BATCH_OBJECTS = 32>
class Pool {
public:
    static constexpr std::uint32_t BATCH = BATCH_OBJECTS;

    struct Counters {
        std::uint64_t in_use;      // taken and not given back
        std::uint64_t high_water;  // most objects ever in use or in a cache
        std::uint64_t refills;     // batches taken from the reserve
        std::uint64_t refused;     // takes that found nothing
    };

    explicit Pool(std::uint32_t limit) : limit_(limit) {
        if (limit == 0 || limit >= NONE) throw std::invalid_argument("a pool of no objects, or of too many");
        objects_ = std::make_unique_for_overwrite<Object[]>(limit);  // a page is had when an object is first used
        links_ = std::make_unique<Links[]>(limit);
        for (std::uint32_t first = 0; first < limit;) {
            const std::uint32_t count = std::min(BATCH, limit - first);
            for (std::uint32_t i = first; i < first + count; ++i) links_[i].next = i + 1 < first + count ? i + 1 : NONE;
            push(first, count);
            first += count;
        }
        high_water_.store(0);
        away_.store(0);
    }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    std::uint32_t limit() const { return limit_; }
    Counters counters() const {
        return {in_use_.load(std::memory_order_relaxed), high_water_.load(std::memory_order_relaxed),
                refills_.load(std::memory_order_relaxed), refused_.load(std::memory_order_relaxed)};
    }

    // One thread's hand on the pool. It must not outlive it.
    class Cache {
    public:
        explicit Cache(Pool& pool) : pool_(pool) {}
        ~Cache() {
            while (count_ != 0) give_batch(std::min(count_, BATCH));
            settle();
        }
        Cache(const Cache&) = delete;
        Cache& operator=(const Cache&) = delete;

        // A new object; null at the limit.
        template <class... Arguments>
        T* take(Arguments&&... arguments) {
            if (count_ == 0 && !refill()) return nullptr;
            const std::uint32_t i = first_;
            first_ = pool_.links_[i].next;
            --count_;
            ++balance_;
            return ::new (static_cast<void*>(pool_.objects_[i].bytes)) T(std::forward<Arguments>(arguments)...);
        }

        // Ends an object of this pool, whoever took it.
        void give(T* object) {
            object->~T();
            const auto i = static_cast<std::uint32_t>(reinterpret_cast<Object*>(object) - pool_.objects_.get());
            pool_.links_[i].next = first_;
            first_ = i;
            --balance_;
            if (++count_ == 2 * BATCH) give_batch(BATCH);
        }

    private:
        bool refill() {
            settle();
            first_ = pool_.pop(count_);
            return first_ != NONE;
        }
        void give_batch(std::uint32_t count) {
            std::uint32_t last = first_;
            for (std::uint32_t n = 1; n < count; ++n) last = pool_.links_[last].next;
            const std::uint32_t rest = std::exchange(pool_.links_[last].next, NONE);
            pool_.push(first_, count);
            first_ = rest;
            count_ -= count;
            settle();
        }
        // The shared count of objects in use is brought up to date once a batch.
        void settle() {
            pool_.in_use_.fetch_add(static_cast<std::uint64_t>(std::exchange(balance_, 0)), std::memory_order_relaxed);
        }

        Pool& pool_;
        std::uint32_t first_ = NONE;
        std::uint32_t count_ = 0;
        std::int64_t balance_ = 0;
    };

private:
    static constexpr std::uint32_t NONE = ~0u;

    union Object {
        alignas(T) std::byte bytes[sizeof(T)];
    };
    struct Links {
        std::uint32_t next = NONE;                // in its batch or cache: its owner's
        std::atomic<std::uint32_t> below{NONE};   // of a batch's first: the next batch
        std::atomic<std::uint32_t> count{0};      // of a batch's first: how many
    };

    void push(std::uint32_t first, std::uint32_t count) {
        links_[first].count.store(count, std::memory_order_relaxed);
        std::uint64_t seen = reserve_.load(std::memory_order_relaxed);
        do links_[first].below.store(static_cast<std::uint32_t>(seen), std::memory_order_relaxed);
        while (!reserve_.compare_exchange_weak(seen, next_tag(seen) | first, std::memory_order_release,  // P1
                                               std::memory_order_relaxed));
        away_.fetch_sub(count, std::memory_order_relaxed);
    }

    // The first object of a batch, and how many; NONE: the reserve is empty.
    std::uint32_t pop(std::uint32_t& count) {
        std::uint64_t seen = reserve_.load(std::memory_order_acquire);
        for (;;) {
            const auto first = static_cast<std::uint32_t>(seen);
            if (first == NONE) {
                refused_.fetch_add(1, std::memory_order_relaxed);
                return NONE;
            }
            const std::uint32_t below = links_[first].below.load(std::memory_order_relaxed);
            if (reserve_.compare_exchange_weak(seen, next_tag(seen) | below, std::memory_order_acquire)) {  // P2
                count = links_[first].count.load(std::memory_order_relaxed);
                refills_.fetch_add(1, std::memory_order_relaxed);
                const std::uint64_t away = away_.fetch_add(count, std::memory_order_relaxed) + count;
                std::uint64_t high = high_water_.load(std::memory_order_relaxed);
                while (static_cast<std::int64_t>(away) > static_cast<std::int64_t>(high) &&
                       !high_water_.compare_exchange_weak(high, away, std::memory_order_relaxed)) {
                }
                return first;
            }
        }
    }
    static std::uint64_t next_tag(std::uint64_t reserve) { return ((reserve >> 32) + 1) << 32; }

    const std::uint32_t limit_;
    std::unique_ptr<Object[]> objects_;
    std::unique_ptr<Links[]> links_;
    alignas(128) std::atomic<std::uint64_t> reserve_{NONE};
    alignas(128) std::atomic<std::uint64_t> in_use_{0};
    std::atomic<std::uint64_t> away_{0};
    std::atomic<std::uint64_t> high_water_{0};
    std::atomic<std::uint64_t> refills_{0};
    std::atomic<std::uint64_t> refused_{0};
};

}  // namespace lob

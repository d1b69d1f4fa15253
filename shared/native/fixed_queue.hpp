// fixed_queue.hpp - a small bounded queue of fixed slots: many producers, many consumers, any of them may die.
//
// Each slot goes DESTROYED -> COPY_IN -> CONSTRUCTED -> COPY_OUT -> DESTROYED. Nobody waits for a slot of somebody
// else: a producer takes any DESTROYED one, a consumer the CONSTRUCTED one with the lowest ticket, so a dead peer
// costs at most its own slot and never the queue (slots in ticket order would wedge there).
//
// Shape      slots[SLOTS], then who sleeps; state = ticket * 4 + phase; the ticket is the time of the claim.
// Ordering   P1 CAS DESTROYED->COPY_IN acquire   pairs with C3: the last consumer is done with the payload
//            P2 CAS COPY_IN->CONSTRUCTED release pairs with C1: the state implies the payload
//            C1 CAS CONSTRUCTED->COPY_OUT acquire; C3 CAS COPY_OUT->DESTROYED release
//            C0 load of the states acquire       pairs with P2: who sees a slot filled sees those its producer filled before
// Order      the entries of one producer come out in their order; a consumer scans until two scans agree on the
//            oldest, because slots that it has passed may be filled behind it.
// Waiting    enqueue() and dequeue() sleep by the protocol of wait.hpp on a word each: P2 wakes consumers, C3 producers.
// Crash      a slot that stays in COPY_IN or COPY_OUT for longer than STUCK_NS is taken back, counted. A producer that
//            was only stopped then fails at P2 (the ticket differs); what it may scribble on the next payload is found
//            by the checksum, which covers the ticket, and that entry is thrown away, counted. A consumer that was
//            only stopped fails at C3 and keeps what it has copied whole: nobody else will get it. What a dead one had
//            half copied, in or out, is gone; the sleep of who waits for that slot ends by itself (SLEEP_NS), so
//            a full queue of dead producers is a wait of STUCK_NS and no hang.
// Full       try_enqueue gives false.
// Not for    hot data: a scan of SLOTS lines a call. Requests travel here.
#pragma once

#include <algorithm>
#include <cstring>
#include <iterator>
#include <type_traits>

#include "fail_point.hpp"
#include "segment.hpp"
#include "wait.hpp"

namespace lob {

template <class Payload, std::uint64_t SLOTS, class A = DefaultAtomics>
class FixedQueue {
    static_assert(std::is_trivially_copyable_v<Payload> && sizeof(Payload) % 8 == 0, "it is copied word by word");
    static constexpr std::size_t WORDS = sizeof(Payload) / 8;
    enum Phase : std::uint64_t { DESTROYED = 0, COPY_IN = 1, CONSTRUCTED = 2, COPY_OUT = 3 };

public:
    static constexpr std::int64_t STUCK_NS = 1'000'000'000;

    struct alignas(128) Slot {
        typename A::template atomic<std::uint64_t> state;
        typename A::template atomic<std::int64_t> since_ns;
        typename A::template atomic<std::uint64_t> checksum;
        std::uint64_t payload[WORDS];
    };
    // Zeroed memory is an empty queue.
    struct Storage {
        Slot slots[SLOTS];
        alignas(128) typename A::template atomic<std::uint32_t> consumer_sleep;
        alignas(128) typename A::template atomic<std::uint32_t> producer_sleep;
    };

    explicit FixedQueue(Storage& storage, std::int64_t stuck_ns = STUCK_NS) : storage_(storage), stuck_ns_(stuck_ns) {}

    bool try_enqueue(const Payload& payload) {
        std::uint64_t words[WORDS];
        std::memcpy(words, &payload, sizeof payload);
        const std::uint64_t ticket = next_ticket();
        for (Slot& slot : storage_.slots) {
            std::uint64_t seen = slot.state.load(std::memory_order_relaxed);
            if (stuck(slot, seen) && slot.state.compare_exchange_strong(seen, seen & ~3ull, std::memory_order_relaxed)) {
                seen &= ~3ull;
                ++recovered_;
            }
            if ((seen & 3) != DESTROYED) continue;
            LOB_FAIL_POINT(40);
            if (!slot.state.compare_exchange_strong(seen, ticket * 4 + COPY_IN, std::memory_order_acquire)) continue;  // P1
            LOB_FAIL_POINT(41);
            slot.since_ns.store(mono_ns(), std::memory_order_relaxed);
            for (std::size_t w = 0; w < WORDS; ++w) {
                A::store_word(&slot.payload[w], words[w]);
                LOB_FAIL_POINT(42);
            }
            slot.checksum.store(checksum(words, ticket), std::memory_order_relaxed);
            LOB_FAIL_POINT(43);
            std::uint64_t mine = ticket * 4 + COPY_IN;
            if (slot.state.compare_exchange_strong(mine, ticket * 4 + CONSTRUCTED, std::memory_order_release)) {  // P2
                LOB_FAIL_POINT(44);
                wake_if_asleep<A>(storage_.consumer_sleep);
                return true;
            }
        }
        return false;
    }

    bool try_dequeue(Payload& payload) {
        for (;;) {
            std::uint64_t oldest_state = ~0ull;
            Slot* oldest = find_oldest(oldest_state);
            if (oldest == nullptr) return false;
            for (Slot* before = nullptr; oldest != before;) {
                before = oldest;
                if (Slot* older = find_oldest(oldest_state)) oldest = older;
            }
            const std::uint64_t ticket = oldest_state >> 2;
            const std::uint64_t taken = next_ticket() * 4 + COPY_OUT;  // a new ticket: this phase is not stuck yet
            LOB_FAIL_POINT(50);
            if (!oldest->state.compare_exchange_strong(oldest_state, taken, std::memory_order_acquire)) continue;  // C1
            LOB_FAIL_POINT(51);
            oldest->since_ns.store(mono_ns(), std::memory_order_relaxed);
            std::uint64_t words[WORDS];
            for (std::size_t w = 0; w < WORDS; ++w) words[w] = A::load_word(&oldest->payload[w]);
            const bool whole = oldest->checksum.load(std::memory_order_relaxed) == checksum(words, ticket);
            LOB_FAIL_POINT(52);
            std::uint64_t mine = taken;
            oldest->state.compare_exchange_strong(mine, taken & ~3ull, std::memory_order_release);  // C3
            LOB_FAIL_POINT(53);
            wake_if_asleep<A>(storage_.producer_sleep);
            if (!whole) {
                ++damaged_;
                continue;
            }
            std::memcpy(&payload, words, sizeof payload);
            return true;
        }
    }

    // Wait for room, or for an entry; false: not within the time-out.
    bool enqueue(const Payload& payload, WaitMode mode, std::int64_t timeout_ns) {
        return wait_until<A>([&] { return try_enqueue(payload); }, &storage_.producer_sleep, mode, timeout_ns);
    }
    bool dequeue(Payload& payload, WaitMode mode, std::int64_t timeout_ns) {
        return wait_until<A>([&] { return try_dequeue(payload); }, &storage_.consumer_sleep, mode, timeout_ns);
    }

    std::uint64_t recovered() const { return recovered_; }
    std::uint64_t damaged() const { return damaged_; }

private:
    // The CONSTRUCTED slot with the lowest state below `state` (lowered to it); null: none.
    Slot* find_oldest(std::uint64_t& state) {
        Slot* oldest = nullptr;
        for (Slot& slot : storage_.slots) {
            std::uint64_t seen = slot.state.load(std::memory_order_acquire);  // C0
            if ((seen & 3) == COPY_OUT && stuck(slot, seen)) {
                if (slot.state.compare_exchange_strong(seen, seen & ~3ull, std::memory_order_relaxed)) ++recovered_;
                continue;
            }
            if ((seen & 3) == CONSTRUCTED && seen < state) {
                oldest = &slot;
                state = seen;
            }
        }
        return oldest;
    }

    // Tickets order the slots; two producers with equal clocks only swap places.
    static std::uint64_t next_ticket() { return static_cast<std::uint64_t>(mono_ns()); }

    bool stuck(const Slot& slot, std::uint64_t state) const {
        const auto phase = state & 3;
        if (phase != COPY_IN && phase != COPY_OUT) return false;
        const auto since_ns = std::max(slot.since_ns.load(std::memory_order_relaxed), static_cast<std::int64_t>(state >> 2));
        return mono_ns() - since_ns > stuck_ns_;
    }

    static std::uint64_t checksum(const std::uint64_t* words, std::uint64_t ticket) {
        std::uint64_t hash = 1469598103934665603ull ^ ticket;
        for (std::size_t w = 0; w < WORDS; ++w) hash = (hash ^ words[w]) * 1099511628211ull;
        return hash;
    }

    Storage& storage_;
    const std::int64_t stuck_ns_;
    std::uint64_t recovered_ = 0;
    std::uint64_t damaged_ = 0;
};

// The requests that travel upstream: one in each ring's segment.
template <class A = DefaultAtomics>
class RequestQueue : public FixedQueue<Request, QUEUE_SLOTS, A> {
    using Base = FixedQueue<Request, QUEUE_SLOTS, A>;
    static_assert(sizeof(typename Base::Slot) == QUEUE_SLOT_BYTES, "other processes rely on it");
    static_assert(QUEUE_OFFSET + sizeof(typename Base::Storage) <= MANIFEST_OFFSET);

public:
    explicit RequestQueue(Segment& segment, std::int64_t stuck_ns = Base::STUCK_NS) : Base(storage(segment), stuck_ns) {}

private:
    static typename Base::Storage& storage(Segment& segment) {
        if (!segment.writable()) throw std::invalid_argument("the segment is mapped read-only");
        return *reinterpret_cast<typename Base::Storage*>(segment.queue());
    }
};

}  // namespace lob

// fixed_queue.hpp - a small bounded queue of fixed slots: many producers, many consumers, any of them may die.
//
// Each slot goes DESTROYED -> COPY_IN -> CONSTRUCTED -> COPY_OUT -> DESTROYED. Nobody waits for a slot of somebody
// else: a producer takes any DESTROYED one, a consumer the CONSTRUCTED one with the lowest ticket, so a dead peer
// costs at most its own slot and never the queue (slots in ticket order would wedge there).
//
// Shape      slots[QUEUE_SLOTS]; state = ticket * 4 + phase; the ticket comes from a counter in the queue.
// Ordering   P1 CAS DESTROYED->COPY_IN acquire   pairs with C3: the last consumer is done with the payload
//            P2 CAS COPY_IN->CONSTRUCTED release pairs with C1: the state implies the payload
//            C1 CAS CONSTRUCTED->COPY_OUT acquire; C3 CAS COPY_OUT->DESTROYED release
//            C0 load of the states acquire       pairs with P2: who sees a request sees those its producer made before
// Order      the requests of one producer come out in their order; a consumer scans until two scans agree on the
//            oldest, because slots that it has passed may be filled behind it.
// Crash      a slot that stays in COPY_IN or COPY_OUT for longer than STUCK_NS is taken back, counted. A producer that
//            was only stopped then fails at P2 (the ticket differs); what it may scribble on the next payload is found
//            by the checksum, which covers the ticket, and that record is thrown away, counted. A consumer that was
//            only stopped fails at C3 and keeps what it has copied whole: nobody else will get it.
// Full       try_enqueue gives false.
// Not for    hot data: a scan of QUEUE_SLOTS lines a call. Requests travel here.
#pragma once

#include <algorithm>
#include <cstring>
#include <iterator>

#include "segment.hpp"

namespace lob {

template <class A = DefaultAtomics>
class RequestQueue {
    enum Phase : std::uint64_t { DESTROYED = 0, COPY_IN = 1, CONSTRUCTED = 2, COPY_OUT = 3 };
    static constexpr std::int64_t STUCK_NS = 1'000'000'000;

    struct Slot {
        typename A::template atomic<std::uint64_t> state;
        typename A::template atomic<std::int64_t> since_ns;
        typename A::template atomic<std::uint64_t> checksum;
        std::uint64_t payload[sizeof(Request) / 8];
        char pad[QUEUE_SLOT_BYTES - 24 - sizeof(Request)];
    };
    static_assert(sizeof(Slot) == QUEUE_SLOT_BYTES);

public:
    explicit RequestQueue(Segment& segment) : slots_(reinterpret_cast<Slot*>(segment.queue())) {
        if (!segment.writable()) throw std::invalid_argument("the segment is mapped read-only");
    }

    bool try_enqueue(const Request& request) {
        std::uint64_t words[sizeof(Request) / 8];
        std::memcpy(words, &request, sizeof request);
        const std::uint64_t ticket = next_ticket();
        for (std::uint64_t i = 0; i < QUEUE_SLOTS; ++i) {
            Slot& slot = slots_[i];
            std::uint64_t seen = slot.state.load(std::memory_order_relaxed);
            if (stuck(slot, seen) && slot.state.compare_exchange_strong(seen, seen & ~3ull, std::memory_order_relaxed)) {
                seen &= ~3ull;
                ++recovered_;
            }
            if ((seen & 3) != DESTROYED) continue;
            if (!slot.state.compare_exchange_strong(seen, ticket * 4 + COPY_IN, std::memory_order_acquire)) continue;  // P1
            slot.since_ns.store(mono_ns(), std::memory_order_relaxed);
            for (std::size_t w = 0; w < std::size(words); ++w) A::store_word(&slot.payload[w], words[w]);
            slot.checksum.store(checksum(words, ticket), std::memory_order_relaxed);
            std::uint64_t mine = ticket * 4 + COPY_IN;
            if (slot.state.compare_exchange_strong(mine, ticket * 4 + CONSTRUCTED, std::memory_order_release)) return true;  // P2
        }
        return false;
    }

    bool try_dequeue(Request& request) {
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
            if (!oldest->state.compare_exchange_strong(oldest_state, taken, std::memory_order_acquire)) continue;  // C1
            oldest->since_ns.store(mono_ns(), std::memory_order_relaxed);
            std::uint64_t words[sizeof(Request) / 8];
            for (std::size_t w = 0; w < std::size(words); ++w) words[w] = A::load_word(&oldest->payload[w]);
            const bool whole = oldest->checksum.load(std::memory_order_relaxed) == checksum(words, ticket);
            std::uint64_t mine = taken;
            oldest->state.compare_exchange_strong(mine, taken & ~3ull, std::memory_order_release);  // C3
            if (!whole) {
                ++damaged_;
                continue;
            }
            std::memcpy(&request, words, sizeof request);
            return true;
        }
    }

    std::uint64_t recovered() const { return recovered_; }
    std::uint64_t damaged() const { return damaged_; }

private:
    // The CONSTRUCTED slot with the lowest state below `state` (lowered to it); null: none.
    Slot* find_oldest(std::uint64_t& state) {
        Slot* oldest = nullptr;
        for (std::uint64_t i = 0; i < QUEUE_SLOTS; ++i) {
            std::uint64_t seen = slots_[i].state.load(std::memory_order_acquire);  // C0
            if (stuck(slots_[i], seen) && (seen & 3) == COPY_OUT) {
                if (slots_[i].state.compare_exchange_strong(seen, seen & ~3ull, std::memory_order_relaxed)) ++recovered_;
                continue;
            }
            if ((seen & 3) == CONSTRUCTED && seen < state) {
                oldest = &slots_[i];
                state = seen;
            }
        }
        return oldest;
    }

    // Tickets order the slots; two producers with equal clocks only swap places.
    static std::uint64_t next_ticket() { return static_cast<std::uint64_t>(mono_ns()); }

    static bool stuck(const Slot& slot, std::uint64_t state) {
        const auto phase = state & 3;
        if (phase != COPY_IN && phase != COPY_OUT) return false;
        const auto since_ns = std::max(slot.since_ns.load(std::memory_order_relaxed), static_cast<std::int64_t>(state >> 2));
        return mono_ns() - since_ns > STUCK_NS;
    }

    static std::uint64_t checksum(const std::uint64_t* words, std::uint64_t ticket) {
        std::uint64_t hash = 1469598103934665603ull ^ ticket;
        for (std::size_t w = 0; w < sizeof(Request) / 8; ++w) hash = (hash ^ words[w]) * 1099511628211ull;
        return hash;
    }

    Slot* slots_;
    std::uint64_t recovered_ = 0;
    std::uint64_t damaged_ = 0;
};

}  // namespace lob

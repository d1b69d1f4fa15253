// fixed_queue.hpp - a small bounded queue of fixed slots: many producers, many consumers, any of them may die.
//
// Each slot goes DESTROYED -> COPY_IN -> CONSTRUCTED -> COPY_OUT -> DESTROYED. Nobody waits for a slot of somebody
// else: a producer takes any DESTROYED one, a consumer the CONSTRUCTED one with the lowest ticket, so a dead peer
// costs at most its own slot and never the queue (slots in ticket order would wedge there).
//
// Shape      slots[SLOTS], then who sleeps, then two counters; state = ticket << 16 | producer << 9 | owner << 2 | phase, one word,
//            so a slot is never held without the number of who holds it. Ticket (the time of the claim, TICK_NS) and producer
//            name the entry, and stay as they are when a consumer takes it.
// Ordering   P1 CAS DESTROYED->COPY_IN acquire   pairs with C3: the last consumer is done with the payload
//            P2 CAS COPY_IN->CONSTRUCTED release pairs with C1: the state implies the payload
//            C1 CAS CONSTRUCTED->COPY_OUT acquire; C3 CAS COPY_OUT->DESTROYED release
//            C0 load of the states acquire       pairs with P2: who sees a slot filled sees those its producer filled before
// Order      the entries of one producer come out in their order; a consumer scans until two scans agree on the
//            oldest, because slots that it has passed may be filled behind it.
// Waiting    enqueue() and dequeue() sleep by the protocol of wait.hpp on a word each: P2 wakes consumers, C3 producers.
// Liveness   an owner number is a lock that the kernel frees at any death (Peers; in shared memory a byte of the ring's lock
//            file). Who meets a slot that is in COPY_* for more than GRACE_NS asks for its owner: dead: D1 CAS
//            COPY_IN->DESTROYED or COPY_OUT->CONSTRUCTED (nobody changes a payload by taking it), counted; alive, also if it is only
//            stopped: passed by, for as long as that takes.
//            A number that was a dead one's before is adopted first (D2): whoever gets it holds its lock, so what
//            lies under that number is the dead one's, and is freed before the first claim of the new owner. Between the lock and
//            D2 such a slot looks held by the living, and is passed by. The dead has made all its stores before the kernel
//            frees its lock; D1 hands on what P2 and C3 before it have ordered.
// Crash      what a dead producer had half copied in is gone, and nothing else. An entry is its consumer's from C3 on; `note` is
//            called before, so what a consumer writes down there is written before the entry can be gone, and may be
//            written twice: by one that died between the two, and by the next.
// Checksum   over payload, ticket and producer. The protocol does not need it; it is for what no lock can tell: a lock file that
//            somebody has removed makes the living look dead. A producer robbed so fails at P2, and what it may scribble on
//            the next payload is thrown away, counted; a consumer robbed so fails at C3 and goes on as if it had not met the entry.
// Full       try_enqueue gives false.
// Not for    hot data: a scan of SLOTS lines a call. Requests travel here, and batches of work.
#pragma once

#include <algorithm>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

#include "fail_point.hpp"
#include "peers.hpp"
#include "segment.hpp"
#include "wait.hpp"

namespace lob {

template <class Payload, std::uint64_t SLOTS, class Peers = AllLive, class A = DefaultAtomics>
class FixedQueue {
    static_assert(std::is_trivially_copyable_v<Payload> && sizeof(Payload) % 8 == 0, "it is copied word by word");
    static constexpr std::size_t WORDS = sizeof(Payload) / 8;
    enum Phase : std::uint64_t { DESTROYED = 0, COPY_IN = 1, CONSTRUCTED = 2, COPY_OUT = 3 };

public:
    static constexpr std::int64_t GRACE_NS = 1'000'000;  // no copy takes so long, unless its owner is off its core
    static constexpr std::int64_t TICK_NS = 1024;        // 48 bits of them are nine years
    static constexpr unsigned TICKET_SHIFT = 16, ENTRY_SHIFT = 9;

    struct alignas(128) Slot {
        typename A::template atomic<std::uint64_t> state;
        typename A::template atomic<std::uint64_t> checksum;
        std::uint64_t payload[WORDS];
    };
    // Zeroed memory is an empty queue.
    struct Storage {
        Slot slots[SLOTS];
        alignas(128) typename A::template atomic<std::uint32_t> consumer_sleep;
        alignas(128) typename A::template atomic<std::uint32_t> producer_sleep;
        alignas(128) typename A::template atomic<std::uint64_t> recovered;  // slots taken back from the dead
        typename A::template atomic<std::uint64_t> damaged;                 // entries thrown away
    };

    // Whether there is an entry; for those who look now and then and let others take it.
    static bool filled(const Storage& storage) {
        return std::any_of(std::begin(storage.slots), std::end(storage.slots),
                           [](const Slot& slot) { return (slot.state.load(std::memory_order_relaxed) & 3) == CONSTRUCTED; });
    }

    // `owner`: the caller's number among those who share `storage`, 0 to OWNER_MAX.
    explicit FixedQueue(Storage& storage, Peers peers = {}, std::uint32_t owner = 0, std::int64_t grace_ns = GRACE_NS)
        : storage_(storage), peers_(std::move(peers)), owner_(owner), grace_ns_(grace_ns) {
        if (owner > OWNER_MAX) throw std::invalid_argument("no owner number: " + std::to_string(owner));
    }

    // Frees what the last owner of our number was holding when it died. Once, when the number has become ours.
    void adopt() {
        for (Slot& slot : storage_.slots) {
            const std::uint64_t seen = slot.state.load(std::memory_order_relaxed);
            if (in_copy(seen) && owner_of(seen) == owner_) take_back(slot, seen);  // D2
        }
    }

    bool try_enqueue(const Payload& payload) {
        std::uint64_t words[WORDS];
        std::memcpy(words, &payload, sizeof payload);
        const std::uint64_t entry = next_entry(), claim = held(entry, DESTROYED);
        for (Slot& slot : storage_.slots) {
            std::uint64_t seen = slot.state.load(std::memory_order_relaxed);
            if (left_by_the_dead(seen)) seen = take_back(slot, seen);
            if ((seen & 3) != DESTROYED) continue;
            LOB_FAIL_POINT(40);
            if (!slot.state.compare_exchange_strong(seen, claim | COPY_IN, std::memory_order_acquire)) continue;  // P1
            LOB_FAIL_POINT(41);
            for (std::size_t w = 0; w < WORDS; ++w) {
                A::store_word(&slot.payload[w], words[w]);
                LOB_FAIL_POINT(42);
            }
            slot.checksum.store(checksum(words, entry), std::memory_order_relaxed);
            LOB_FAIL_POINT(43);
            std::uint64_t mine = claim | COPY_IN;
            if (slot.state.compare_exchange_strong(mine, claim | CONSTRUCTED, std::memory_order_release)) {  // P2
                LOB_FAIL_POINT(44);
                wake_if_asleep<A>(storage_.consumer_sleep);
                return true;
            }
        }
        return false;
    }

    bool try_dequeue(Payload& payload) {
        return try_dequeue(payload, [](const Payload&) {});
    }
    // `note(payload)` is called while the entry is still in the queue.
    template <class Note>
    bool try_dequeue(Payload& payload, Note&& note) {
        for (;;) {
            std::uint64_t oldest_state = ~0ull;
            Slot* oldest = find_oldest(oldest_state);
            if (oldest == nullptr) return false;
            for (Slot* before = nullptr; oldest != before;) {
                before = oldest;
                if (Slot* older = find_oldest(oldest_state)) oldest = older;
            }
            const std::uint64_t entry = oldest_state >> ENTRY_SHIFT, claim = held(entry, DESTROYED);
            LOB_FAIL_POINT(50);
            if (!oldest->state.compare_exchange_strong(oldest_state, claim | COPY_OUT, std::memory_order_acquire)) continue;  // C1
            LOB_FAIL_POINT(51);
            std::uint64_t words[WORDS];
            for (std::size_t w = 0; w < WORDS; ++w) words[w] = A::load_word(&oldest->payload[w]);
            const bool whole = oldest->checksum.load(std::memory_order_relaxed) == checksum(words, entry);
            if (whole) {
                std::memcpy(&payload, words, sizeof payload);
                note(std::as_const(payload));
            }
            LOB_FAIL_POINT(52);
            std::uint64_t mine = claim | COPY_OUT;
            if (!oldest->state.compare_exchange_strong(mine, claim | DESTROYED, std::memory_order_release)) continue;  // C3
            LOB_FAIL_POINT(53);
            wake_if_asleep<A>(storage_.producer_sleep);
            if (whole) return true;
            storage_.damaged.fetch_add(1, std::memory_order_relaxed);
        }
    }

    // Wait for room, or for an entry; false: not within the time-out.
    bool enqueue(const Payload& payload, WaitMode mode, std::int64_t timeout_ns) {
        return wait_until<A>([&] { return try_enqueue(payload); }, &storage_.producer_sleep, mode, timeout_ns);
    }
    bool dequeue(Payload& payload, WaitMode mode, std::int64_t timeout_ns) {
        return wait_until<A>([&] { return try_dequeue(payload); }, &storage_.consumer_sleep, mode, timeout_ns);
    }

    std::uint64_t recovered() const { return storage_.recovered.load(std::memory_order_relaxed); }
    std::uint64_t damaged() const { return storage_.damaged.load(std::memory_order_relaxed); }

private:
    // The CONSTRUCTED slot with the lowest state below `state` (lowered to it); null: none.
    Slot* find_oldest(std::uint64_t& state) {
        Slot* oldest = nullptr;
        for (Slot& slot : storage_.slots) {
            std::uint64_t seen = slot.state.load(std::memory_order_acquire);  // C0
            if (left_by_the_dead(seen)) seen = take_back(slot, seen);
            if ((seen & 3) == CONSTRUCTED && seen < state) {
                oldest = &slot;
                state = seen;
            }
        }
        return oldest;
    }

    static bool in_copy(std::uint64_t state) { return (state & 1) != 0; }
    static std::uint32_t owner_of(std::uint64_t state) { return static_cast<std::uint32_t>(state >> 2) & OWNER_MAX; }

    bool left_by_the_dead(std::uint64_t state) const {
        if (!in_copy(state) || owner_of(state) == owner_) return false;
        // Tickets of a producer in a hurry are ahead of the clock: then it is asked for at once.
        const std::int64_t age_ns = mono_ns() - static_cast<std::int64_t>(state >> TICKET_SHIFT) * TICK_NS;
        return (age_ns < 0 || age_ns > grace_ns_) && !peers_(owner_of(state));
    }

    // What the slot's state is then.
    std::uint64_t take_back(Slot& slot, std::uint64_t seen) {
        const std::uint64_t before = (seen & ~3ull) | ((seen & 3) == COPY_OUT ? CONSTRUCTED : DESTROYED);
        if (!slot.state.compare_exchange_strong(seen, before, std::memory_order_acq_rel)) return seen;  // D1
        storage_.recovered.fetch_add(1, std::memory_order_relaxed);
        wake_if_asleep<A>((before & 3) == CONSTRUCTED ? storage_.consumer_sleep : storage_.producer_sleep);
        return before;
    }

    // Tickets order the slots; those of one producer rise, two producers with equal clocks only swap places.
    std::uint64_t next_entry() {
        ticket_ = std::max(ticket_ + 1, static_cast<std::uint64_t>(mono_ns() / TICK_NS));
        return (ticket_ << TICKET_SHIFT | std::uint64_t{owner_} << ENTRY_SHIFT) >> ENTRY_SHIFT;
    }
    std::uint64_t held(std::uint64_t entry, Phase phase) const {
        return entry << ENTRY_SHIFT | std::uint64_t{owner_} << 2 | phase;
    }

    static std::uint64_t checksum(const std::uint64_t* words, std::uint64_t entry) {
        // Mixed after each word, the entry's too: neighbours in number and content must not cancel each other out.
        std::uint64_t hash = mixed(1469598103934665603ull ^ entry);
        for (std::size_t w = 0; w < WORDS; ++w) hash = mixed(hash ^ words[w]);
        return hash;
    }
    static std::uint64_t mixed(std::uint64_t hash) {
        hash *= 0x9E3779B97F4A7C15ull;
        return hash ^ hash >> 32;
    }

    Storage& storage_;
    const Peers peers_;
    const std::uint32_t owner_;
    const std::int64_t grace_ns_;
    std::uint64_t ticket_ = 0;
};

// The requests that travel upstream: one in each ring's segment.
template <class Peers = LockedPeers, class A = DefaultAtomics>
class RequestQueue : public FixedQueue<Request, QUEUE_SLOTS, Peers, A> {
    using Base = FixedQueue<Request, QUEUE_SLOTS, Peers, A>;
    static_assert(sizeof(typename Base::Slot) == QUEUE_SLOT_BYTES, "other processes rely on it");
    static_assert(QUEUE_OFFSET + sizeof(typename Base::Storage) <= MANIFEST_OFFSET);

public:
    explicit RequestQueue(Segment& segment, Peers peers = {}, std::uint32_t owner = 0, std::int64_t grace_ns = Base::GRACE_NS)
        : Base(storage(segment), std::move(peers), owner, grace_ns) {
        if (!segment.writable()) throw std::invalid_argument("the segment is mapped read-only");
    }

    static typename Base::Storage& storage(const Segment& segment) {
        return *reinterpret_cast<typename Base::Storage*>(segment.queue());
    }
};

}  // namespace lob

// ring_model.cpp - the rings' own source under Relacy: many schedules, and in each every load may be as old as C++ allows.
//
//   ring_model [ITERATIONS]     default: 200000 of each scenario
//
// First each scenario as the source is: all schedules must pass. Then with one seeded mistake after the other: each must be
// REJECTED, or the scenario is too weak to prove anything. A run is a child process; what Relacy says of the last
// rejected run of each mistake goes to stderr only with -v.
#include <fcntl.h>

#include "relacy_atomics.hpp"

using namespace lob;
using namespace lob::model;

namespace {

using A = RelacyAtomics;
constexpr std::uint64_t CAPACITY = 512;
constexpr std::int64_t FOR_EVER_NS = std::int64_t{1} << 60;
constexpr std::uint64_t FIRST_POSITIONS[] = {0, 512 * 9 - 64, (1ull << 32) - 64, (1ull << 63) - 64};

// One segment of each kind for the life of the process; emptied before each schedule.
struct Memory {
    Memory(Kind kind, Policy policy, std::uint64_t capacity = CAPACITY, std::uint32_t slots = 0, std::uint32_t depth = 0)
        : data_bytes(capacity) {
        const int fd = memfd_create("ring_model", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, static_cast<off_t>(Segment::size_for(capacity))) != 0) std::abort();
        Segment::format(fd, kind, policy, capacity, 1, slots, depth, 0);
        segment.emplace(fd, true);
        close(fd);
        std::memcpy(pristine, &header(), sizeof pristine);
    }
    Header& header() { return segment->header(); }
    void reset(std::uint64_t first_position) {
        std::memcpy(reinterpret_cast<std::byte*>(&header()), pristine, sizeof pristine);
        std::memset(segment->data(), 0, data_bytes);
        Header& h = header();
        h.first_position = first_position;
        for (auto* position : {&h.tail, &h.intent, &h.latest, &h.checkpoint[0].tail}) position->store(first_position);
        if (h.readers[0].state.load() != 0) h.readers[0].position.store(first_position);
        World::base = reinterpret_cast<std::byte*>(&h);
    }
    std::uint64_t data_bytes;
    std::optional<Segment> segment;
    std::byte pristine[sizeof(Header)];
};

// Long enough from the start: under Relacy nothing is allocated in the middle of a schedule.
std::vector<std::uint64_t> copy_of_a_record(CAPACITY / 8);

std::uint64_t content(std::uint64_t seq, std::size_t word) { return seq * 1000003 + word * 7919 + 1; }

// 80 to 128 bytes, so that pads come and the places of records shift from lap to lap.
std::uint32_t random_size() { return static_cast<std::uint32_t>(80 + 8 * rl::rand(7)); }

void watch_ring(World& world, Header& h) {
    for (auto* word : {&h.tail, &h.intent, &h.latest}) world.watch(word);
    world.watch(&h.checkpoint, 2 * sizeof h.checkpoint[0] / 8);
    world.watch_flag(&h.reader_sleep);
    world.watch_flag(&h.writer_sleep);
    world.watch(&h.readers[0].position);
    world.watch_flag(&h.readers[0].state);
}

// Lets the others run: up to `most` steps of nothing.
void idle(Header& h, unsigned most) {
    for (unsigned n = rl::rand(most); n > 0; --n)
        reinterpret_cast<SegmentHeader<A>&>(h).tail.load(std::memory_order_relaxed);
}

template <class Body>
void guarded(Body&& body) {
    try {
        body();
    } catch (const std::exception& error) {
        expect(false, error.what());
    }
}

// ---- spsc: written and read in place; the writer or the reader is killed and another one goes on ------------------------

struct Spsc : rl::test_suite<Spsc, 2> {
    static constexpr std::uint64_t RECORDS = 9;
    static Memory& memory() {
        static Memory one(Kind::spsc, Policy::wait);
        return one;
    }
    World world;
    bool reader_dies = false, writer_dies = false;

    void before() {
        memory().reset(FIRST_POSITIONS[rl::rand(4)]);
        watch_ring(world, memory().header());
        world.watch_plain(memory().segment->data(), CAPACITY / 8);
        writer_dies = rl::rand(2) != 0;
        reader_dies = rl::rand(2) != 0;
    }

    void thread(unsigned index) {
        guarded([&] {
            if (index == 0) write();
            else read();
        });
    }
    void write() {
        if (writer_dies) world.kill_at(static_cast<int>(rl::rand(40)));
        for (int life = 0; life < 2; ++life) {
            try {
                SpscWriter<A> writer(*memory().segment);
                while (writer.next_seq() <= RECORDS) {
                    const std::uint64_t batch = std::min<std::uint64_t>(1 + rl::rand(2), RECORDS + 1 - writer.next_seq());
                    for (std::uint64_t i = 0; i < batch;) {
                        const std::uint32_t size = random_size();
                        RecordHeader* record = writer.claim(size);
                        if (record == nullptr) {
                            writer.commit();
                            expect(writer.wait_free(size, WaitMode::block, FOR_EVER_NS), "no room for ever");
                            continue;
                        }
                        record->type = static_cast<std::uint16_t>(RecordType::diff);
                        auto* words = reinterpret_cast<Word*>(record);
                        for (std::size_t w = 2; w < record->size_bytes / 8; ++w) words[w] = content(record->ring_seq, w);
                        ++i;
                    }
                    writer.commit(writer.next_seq() - 1);
                    expect(writer.raw_seq() == writer.next_seq() - 1, "the checkpoint is another one");
                }
                break;
            } catch (const Killed&) {
            }
        }
        world.spare();
    }
    void read() {
        if (reader_dies) reader_kill_ = static_cast<int>(rl::rand(RECORDS));
        std::uint64_t last = 0;
        for (bool reborn = false; last < RECORDS; reborn = true) {
            SpscReader<A> reader(*memory().segment);
            bool first = reborn;
            while (last < RECORDS) {
                const RecordHeader* record = reader.peek();
                if (record == nullptr) {
                    reader.wait(WaitMode::block, FOR_EVER_NS);
                    continue;
                }
                const std::uint64_t seq = record->ring_seq;
                const auto* words = reinterpret_cast<const Word*>(record);
                for (std::size_t w = 2; w < record->size_bytes / 8; ++w)
                    expect(words[w] == content(seq, w), "spsc: a record is torn");
                if (!(first && seq <= last)) {  // twice only after a death, and the number says so
                    expect(seq == last + 1, "spsc: a record is lost or out of order");
                    first = false;
                    last = seq;
                }
                if (reader_kill_-- == 0) break;  // died before the release
                reader.release(*record);
            }
            if (last == RECORDS) reader.publish();
        }
    }
    int reader_kill_ = -1;
};

// ---- broadcast, drop: whole records only, in order, what is lost is counted, the newest is had --------------------------

template <class Model>
struct BroadcastWriting {
    static bool put(BroadcastWriter<A>& writer, std::uint32_t size) {
        std::uint64_t words[16];
        auto& record = *reinterpret_cast<RecordHeader*>(words);
        for (std::size_t w = 2; w < size / 8; ++w) words[w] = content(writer.next_seq(), w);
        record.size_bytes = size;
        record.type = static_cast<std::uint16_t>(RecordType::diff);
        record.flags = 0;
        reinterpret_cast<Word*>(words)[5] = content(writer.next_seq(), 5);
        return writer.write(record);
    }
    static void check(const std::vector<std::uint64_t>& words) {
        const auto& record = *reinterpret_cast<const RecordHeader*>(words.data());
        for (std::size_t w = 2; w < record.size_bytes / 8; ++w)
            if (w != 7)  // holds the epoch
                expect(reinterpret_cast<const Word*>(words.data())[w] == content(record.ring_seq, w), "broadcast: a record is torn");
    }
};

struct BroadcastDrop : rl::test_suite<BroadcastDrop, 2>, BroadcastWriting<BroadcastDrop> {
    static constexpr std::uint64_t RECORDS = 8;
    static Memory& memory() {
        static Memory one(Kind::broadcast, Policy::drop);
        return one;
    }
    World world;
    bool dies = false;

    void before() {
        memory().reset(FIRST_POSITIONS[rl::rand(4)]);
        watch_ring(world, memory().header());
        world.watch(memory().segment->data(), CAPACITY / 8);
        dies = rl::rand(2) != 0;
    }
    void thread(unsigned index) {
        guarded([&] {
            if (index == 0) write();
            else read();
        });
    }
    void write() {
        if (dies) world.kill_at(static_cast<int>(rl::rand(120)));
        for (int life = 0; life < 2; ++life) {
            try {
                if (life == 1) idle(memory().header(), 300);
                BroadcastWriter<A> writer(*memory().segment);
                if (life == 1 && mistake.kind == Mistake::lowered_intent) {
                    auto& header = reinterpret_cast<SegmentHeader<A>&>(memory().header());
                    header.intent.store(header.tail.load(std::memory_order_relaxed), std::memory_order_relaxed);
                    idle(memory().header(), 100);
                }
                while (writer.next_seq() <= RECORDS) {
                    const std::uint64_t batch = std::min<std::uint64_t>(1 + rl::rand(2), RECORDS + 1 - writer.next_seq());
                    for (std::uint64_t i = 0; i < batch; ++i) expect(put(writer, random_size()), "a writer that drops had to wait");
                    writer.commit();
                }
                break;
            } catch (const Killed&) {
            }
        }
        world.spare();
    }
    void read() {
        BroadcastReader<A> reader(*memory().segment, BroadcastReader<A>::From::oldest, READER_SLOTS);
        auto& words = copy_of_a_record;
        std::uint64_t last = 0, first = 0, count = 0;
        while (last < RECORDS) {
            if (rl::rand(4) == 0) idle(memory().header(), 200);
            const Read result = reader.read(words);
            if (result == Read::lapped) {
                const auto& header = reinterpret_cast<SegmentHeader<A>&>(memory().header());
                expect(static_cast<std::int64_t>(header.tail.load(std::memory_order_relaxed) - reader.position()) >= 0,
                       "broadcast: a lapped reader resumes past the tail");
                continue;
            }
            if (result == Read::empty) {
                reader.wait(WaitMode::block, FOR_EVER_NS);
                continue;
            }
            check(words);
            const std::uint64_t seq = reinterpret_cast<const RecordHeader*>(words.data())->ring_seq;
            expect(seq > last, "broadcast: a record of the lap before");
            if (count++ == 0) first = seq;
            last = seq;
        }
        expect(count + reader.lost() == last - first + 1, "broadcast: the count of the lost is wrong");
    }
};

// ---- broadcast, wait: who registers while the writer is at work is never lapped -------------------------------------------

struct BroadcastJoin : rl::test_suite<BroadcastJoin, 2>, BroadcastWriting<BroadcastJoin> {
    static constexpr std::uint64_t RECORDS = 10;
    static Memory& memory() {
        static Memory one(Kind::broadcast, Policy::wait);
        return one;
    }
    World world;
    std::uint64_t first_position = 0;

    void before() {
        first_position = FIRST_POSITIONS[rl::rand(4)];
        memory().reset(first_position);
        memory().header().readers[0].state.store(0);  // nobody yet
        watch_ring(world, memory().header());
        world.watch(memory().segment->data(), CAPACITY / 8);
    }
    void thread(unsigned index) {
        guarded([&] {
            if (index == 0) write();
            else read();
        });
    }
    void write() {
        BroadcastWriter<A> writer(*memory().segment);
        while (writer.next_seq() <= RECORDS) {
            if (!put(writer, 128)) {
                expect(writer.wait_free(128, WaitMode::block, FOR_EVER_NS), "no room for ever");
                continue;
            }
            writer.commit();
        }
    }
    void read() {
        auto& header = reinterpret_cast<SegmentHeader<A>&>(memory().header());
        BroadcastReader<A> reader(*memory().segment, BroadcastReader<A>::From::newest, 0);
        auto& words = copy_of_a_record;
        for (std::uint64_t last = 0; last < RECORDS;) {
            const Read result = reader.read(words);
            expect(result != Read::lapped, "broadcast: a registered reader was lapped");
            if (result == Read::empty) {
                reader.publish();
                if (last == 0 && reader.drained() && ended(header)) return;  // came after the last record
                reader.wait(WaitMode::block, FOR_EVER_NS);
                continue;
            }
            check(words);
            const std::uint64_t seq = reinterpret_cast<const RecordHeader*>(words.data())->ring_seq;
            expect(last == 0 || seq == last + 1, "broadcast: a registered reader lost a record");
            last = seq;
        }
        reader.publish();
    }
    // The places of records of 128 bytes: with pads where the first position is not a multiple of that.
    bool ended(SegmentHeader<A>& header) const {
        std::uint64_t position = first_position;
        for (std::uint64_t n = 0; n < RECORDS; ++n) {
            const std::uint64_t to_end = CAPACITY - (position & (CAPACITY - 1));
            position += (to_end < 128 ? to_end : 0) + 128;
        }
        return header.tail.load(std::memory_order_acquire) == position;
    }
};

// ---- board ------------------------------------------------------------------------------------------------------------

struct Seqlock : rl::test_suite<Seqlock, 2> {
    static Memory& memory() {
        static Memory one(Kind::board, Policy::drop, board_slot_bytes(1), 1, 1);
        return one;
    }
    World world;
    bool dies = false;

    void before() {
        memory().reset(0);
        world.watch(memory().segment->data(), 1 + sizeof(BoardEntry) / 8);
        world.watch(memory().segment->data() + BOARD_SLOT_HEADER_BYTES, 4);
        dies = rl::rand(2) != 0;
    }
    void thread(unsigned index) {
        if (index == 0) {
            if (dies) world.kill_at(static_cast<int>(rl::rand(60)));
            for (std::uint64_t n = 1; n <= 4;) {
                try {
                    Board<A> board(*memory().segment);
                    for (; n <= 4; ++n) write(board, n);
                } catch (const Killed&) {
                    ++n;
                }
            }
            world.spare();
        } else {
            const Board<A> board(*memory().segment);
            BoardEntry entry{};
            Level levels[2];
            std::uint64_t newest = 0;
            for (int i = 0; i < 3; ++i) {
                if (!board.read(0, entry, levels) || entry.updates == 0) continue;
                const std::uint64_t n = entry.updates;
                expect(n >= newest, "board: went back");
                newest = n;
                expect(entry.last_seq == content(n, 0) && entry.updated_ns == static_cast<std::int64_t>(n) && entry.bid_count == 1 &&
                           levels[0].price == static_cast<std::int64_t>(content(n, 1)) &&
                           levels[1].qty == static_cast<std::int64_t>(content(n, 2)),
                       "board: an entry is torn");
            }
        }
    }
    static void write(Board<A>& board, std::uint64_t n) {
        BoardEntry entry{};
        entry.updates = n;
        entry.last_seq = content(n, 0);
        entry.updated_ns = static_cast<std::int64_t>(n);
        entry.bid_count = entry.ask_count = 1;
        const Level bid{static_cast<std::int64_t>(content(n, 1)), 1}, ask{1, static_cast<std::int64_t>(content(n, 2))};
        board.write(0, entry, &bid, &ask);
    }
};

// ---- queue: each entry once, whole, one producer's in order; nobody sleeps for ever ---------------------------------------

struct Item {
    std::uint64_t id;
    std::uint64_t twice;
};
// The kernel's locks: who holds the number. Its answers are of one order, as of a lock.
struct ModelPeers {
    static inline bool held[4];
    bool operator()(std::uint32_t owner) const {
        if (mistake.kind == Mistake::all_dead) return false;
        return mistake.kind == Mistake::all_live || held[owner];
    }
};
using Queue = FixedQueue<Item, 2, ModelPeers, A>;
constexpr std::int64_t NO_GRACE = -1'000'000;  // who is in a copy is asked for at once

struct QueueMemory {
    alignas(128) std::byte bytes[sizeof(Queue::Storage)];
    Queue::Storage& storage() { return *reinterpret_cast<Queue::Storage*>(bytes); }
    void reset(World& world) {
        std::memset(bytes, 0, sizeof bytes);
        World::base = bytes;
        for (std::size_t i = 0; i < 2; ++i) world.watch(bytes + i * sizeof(Queue::Slot), 2 + sizeof(Item) / 8);
        world.watch_flag(&storage().consumer_sleep);
        world.watch_flag(&storage().producer_sleep);
    }
};
QueueMemory queue_memory;

struct Requests : rl::test_suite<Requests, 4> {
    static constexpr std::uint64_t EACH = 2;
    World world;
    bool got[200] = {};

    void before() {
        queue_memory.reset(world);
        std::fill(std::begin(ModelPeers::held), std::end(ModelPeers::held), true);
    }
    void thread(unsigned index) {
        Queue queue(queue_memory.storage(), {}, index, NO_GRACE);
        if (index < 2) {
            for (std::uint64_t n = 0; n < EACH; ++n) {
                const std::uint64_t id = index * 100 + n + 1;
                expect(queue.enqueue({id, 2 * id}, WaitMode::block, FOR_EVER_NS), "queue: full for ever");
            }
            return;
        }
        std::uint64_t last[2] = {0, 100};
        for (std::uint64_t n = 0; n < EACH; ++n) {
            Item item{};
            expect(queue.dequeue(item, WaitMode::block, FOR_EVER_NS), "queue: empty for ever");
            expect(item.twice == 2 * item.id, "queue: an entry is torn");
            expect(item.id > last[item.id > 100], "queue: an entry is late");
            expect(!std::exchange(got[item.id], true), "queue: an entry is there twice");
            last[item.id > 100] = item.id;
        }
        expect(queue.damaged() == 0 && queue.recovered() == 0, "queue: a slot was taken from the living");
    }
};

// A producer dies before any of its stores, gets its number back or not, and a consumer that dies itself meets what it left. With two slots, one
// death that is not seen is half of the queue, two are all of it.
struct RequestsOfTheDead : rl::test_suite<RequestsOfTheDead, 3> {
    World world;
    bool got[4] = {}, put_[4] = {};
    std::uint64_t deaths = 0;

    void before() {
        queue_memory.reset(world);
        std::fill(std::begin(ModelPeers::held), std::end(ModelPeers::held), true);
    }
    void after() {
        Queue queue(queue_memory.storage(), {}, 3, NO_GRACE);
        Item item{};
        while (queue.try_dequeue(item)) take(item);
        for (int id = 2; id <= 3; ++id) expect(got[id] == put_[id], "queue: an entry is gone with who was taking it");
        for (int n = 0; n < 2; ++n) expect(queue.try_enqueue({1, 2}), "queue: a slot is lost for ever");
        expect(queue.damaged() == 0, "queue: an entry was damaged");
        expect(queue.recovered() == deaths, "queue: slots taken back are not those of the dead");
    }
    void take(const Item& item) {
        expect(item.id >= 1 && item.id <= 3 && item.twice == 2 * item.id, "queue: an entry is torn");
        expect(!std::exchange(got[item.id], true), "queue: an entry is there twice");
    }
    void thread(unsigned index) {
        if (index == 0) {
            // Each store of a slot comes between P1 and P2: payload, payload, checksum.
            const bool inherits = rl::rand(2) != 0;
            for (int life = 0; life < 2; ++life) {
                Queue queue(queue_memory.storage(), {}, 0, NO_GRACE);
                ModelPeers::held[0] = true;
                if (mistake.kind != Mistake::no_adoption) queue.adopt();
                world.kill_at(static_cast<int>(rl::rand(3)));
                try {
                    queue.try_enqueue({1, 2});
                    world.spare();
                } catch (const Killed&) {
                    ++deaths;
                    ModelPeers::held[0] = false;
                    if (inherits) continue;
                }
                break;
            }
            // Its last life ends without a death in a slot, and its number stays taken.
            if (inherits) {
                Queue heir(queue_memory.storage(), {}, 0, NO_GRACE);
                ModelPeers::held[0] = true;
                if (mistake.kind != Mistake::no_adoption) heir.adopt();
            }
            return;
        }
        Queue queue(queue_memory.storage(), {}, index, NO_GRACE);
        if (index == 1) {
            for (std::uint64_t id = 2; id <= 3; ++id) put_[id] = queue.try_enqueue({id, 2 * id});
            return;
        }
        // The first entry that it takes it does not get: it dies with it in its hands, as any consumer between C1 and C3.
        for (int i = 0; i < 3; ++i) {
            Item item{};
            try {
                if (queue.try_dequeue(item, [&](const Item&) { if (i == 0) throw Killed{}; })) take(item);
            } catch (const Killed&) {
                ++deaths;
                Queue heir(queue_memory.storage(), {}, index, NO_GRACE);
                if (mistake.kind != Mistake::no_adoption) heir.adopt();
            }
        }
    }
};

// Everybody looks dead, as with a lock file that was removed: what the living hold is taken from them.
struct RequestsTakenBack : rl::test_suite<RequestsTakenBack, 3> {
    World world;
    bool got[4] = {};

    void before() {
        queue_memory.reset(world);
        std::fill(std::begin(ModelPeers::held), std::end(ModelPeers::held), false);
    }
    void thread(unsigned index) {
        Queue queue(queue_memory.storage(), {}, index, NO_GRACE);
        if (index == 0) {
            for (std::uint64_t id = 1; id <= 2; ++id) queue.try_enqueue({id, 2 * id});
            return;
        }
        if (index == 1) queue.try_enqueue({3, 6});
        for (int i = 0; i < 2; ++i) {
            Item item{};
            if (!queue.try_dequeue(item)) continue;
            expect(item.id >= 1 && item.id <= 3 && item.twice == 2 * item.id, "queue: an entry is torn");
            expect(!std::exchange(got[item.id], true), "queue: an entry is there twice");
        }
    }
};

// ---- running ----------------------------------------------------------------------------------------------------------

bool verbose = false;

enum class Verdict { accepted, rejected, crashed };

// In a child: what Relacy leaves behind in a rejected run is nobody's.
template <class Scenario>
Verdict run(long iterations, const Mistake& seeded) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        if (!verbose) {
            const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
            dup2(null, STDOUT_FILENO);
        }
        mistake = seeded;
        rl::test_params params;
        params.iteration_count = static_cast<rl::iteration_t>(iterations);
        params.execution_depth_limit = 20000;
        params.progress_output_period = 1000;
        std::_Exit(rl::simulate<Scenario>(params) ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status)) return Verdict::crashed;
    return WEXITSTATUS(status) == 0 ? Verdict::accepted : Verdict::rejected;
}

int wrong = 0;

template <class Scenario>
void verify(const char* name, long iterations, std::initializer_list<Mistake> mistakes) {
    const std::int64_t start_ns = mono_ns();
    const bool accepted = run<Scenario>(iterations, Mistake{}) == Verdict::accepted;
    wrong += !accepted;
    std::printf("%s %s: %ld schedules in %.1f s\n", accepted ? "ok    " : "FAILED", name, iterations,
                static_cast<double>(mono_ns() - start_ns) / 1e9);
    for (const Mistake& seeded : mistakes) {
        const bool rejected = run<Scenario>(iterations, seeded) == Verdict::rejected;
        wrong += !rejected;
        std::printf("%s %s, %s\n", rejected ? "  rejected:" : "MISSED", name, seeded.name);
    }
}

constexpr std::uint64_t TAIL = offsetof(Header, tail), INTENT = offsetof(Header, intent), LATEST = offsetof(Header, latest),
                        POSITION = offsetof(Header, readers) + offsetof(ReaderSlot<StdAtomics>, position);
constexpr auto ACQUIRE = std::memory_order_acquire, RELEASE = std::memory_order_release,
               SEQ_CST = std::memory_order_seq_cst;
using M = Mistake;

}  // namespace

int main(int argc, char** argv) {
    for (; argc > 1 && std::strcmp(argv[1], "-v") == 0; --argc, ++argv) verbose = true;
    const long iterations = argc > 1 ? std::atol(argv[1]) : 200000;
    const std::uint64_t state = offsetof(Queue::Slot, state);
    verify<Spsc>("spsc", iterations,
                {{"W1 relaxed: tail", M::weak_store, TAIL},
                 {"W2 relaxed: tail", M::weak_load, TAIL},
                 {"R2 relaxed: position", M::weak_store, POSITION},
                 {"R1 relaxed: position", M::weak_load, POSITION},
                 {"S1 missing: no fence in the waiter", M::no_fence, 0, SEQ_CST, 1},
                 {"S2 missing: no fence in the publisher", M::no_fence, 0, SEQ_CST, 0},
                 {"one checkpoint instead of two", M::one_checkpoint}});
    verify<BroadcastDrop>("broadcast, drop", iterations,
                         {{"W1 missing: no release fence", M::no_fence, 0, RELEASE},
                          {"R3, R4 missing: no acquire fence", M::no_fence, 0, ACQUIRE},
                          {"intent not stored", M::no_store, INTENT},
                          {"W3 relaxed: tail", M::weak_store, TAIL},
                          {"R2 relaxed: tail", M::weak_load, TAIL},
                          {"W4 relaxed: latest", M::weak_store, LATEST},
                          {"R1 relaxed: latest", M::weak_load, LATEST},
                          {"a new writer lowers intent", M::lowered_intent},
                          {"S1 missing: no fence in the waiter", M::no_fence, 0, SEQ_CST, 1},
                          {"S2 missing: no fence in the publisher", M::no_fence, 0, SEQ_CST, 0}});
    verify<BroadcastJoin>("broadcast, wait", iterations,
                         {{"J1 missing: no fence in the newcomer", M::no_fence, 0, SEQ_CST, 1},
                          {"S2 missing: no fence in the writer", M::no_fence, 0, SEQ_CST, 0},
                          {"W3 relaxed: tail", M::weak_store, TAIL}});
    verify<Seqlock>("board", iterations,
                   {{"W1 missing: no release fence", M::no_fence, 0, RELEASE},
                    {"R2 missing: no acquire fence", M::no_fence, 0, ACQUIRE},
                    {"W2 relaxed: stamp", M::weak_store, DATA_OFFSET},
                    {"R1 relaxed: stamp", M::weak_load, DATA_OFFSET}});
    verify<Requests>("queue", iterations,
                    {{"P2, C3 relaxed: state", M::weak_store, state},
                     {"C1, P1 relaxed: state", M::weak_load, state},
                     {"S1, S2 missing: no fence", M::no_fence, 0, SEQ_CST},
                     {"one bit for several sleepers", M::one_bit},
                     {"the owner is not asked for", M::all_dead}});
    verify<RequestsOfTheDead>("queue, dead producers", iterations,
                             {{"the dead are not noticed", M::all_live}, {"a number is not adopted", M::no_adoption}});
    verify<RequestsTakenBack>("queue, slots taken back from the living", iterations, {});
    std::printf("%s\n", wrong == 0 ? "model: the source is accepted, every seeded mistake is rejected" : "model: FAILED");
    return wrong == 0 ? 0 : 1;
}

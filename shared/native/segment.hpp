// segment.hpp - one shared-memory segment: header, request queue, manifest, data.
//
//   0        SegmentHeader (one page; hot words of different owners lie 128 bytes apart,
//            because the prefetcher fetches lines in pairs)
//   4096     request queue      QUEUE_SLOTS slots of 128 bytes (fixed_queue.hpp)
//   16384    manifest           two halves; the version's parity says which holds
//   ...      data               the ring's bytes, or the board's slots
//
// Who makes it, locks it and names it is Python's business (shared/lob/segments.py). Here a file descriptor is
// mapped, checked against itself, and nothing in it is believed before it is checked.
#pragma once

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

#include "atomics.hpp"
#include "clock.hpp"
#include "layout.hpp"
#include "pages.hpp"

namespace lob {

enum class Kind : std::uint32_t { spsc = 1, broadcast = 2, board = 3 };
enum class Policy : std::uint32_t { wait = 0, drop = 1 };
enum class RingState : std::uint32_t { open = 0, paused = 1, closed = 2 };

inline constexpr char MAGIC[8] = {'L', 'O', 'B', 'R', '\r', '\n', '\x1a', '\n'};
inline constexpr std::uint64_t HEADER_BYTES = 4096;
inline constexpr std::uint64_t QUEUE_SLOTS = 64;
inline constexpr std::uint64_t QUEUE_SLOT_BYTES = 128;
inline constexpr std::uint64_t QUEUE_OFFSET = HEADER_BYTES;
inline constexpr std::uint64_t MANIFEST_OFFSET = 16384;
inline constexpr std::uint64_t MANIFEST_BYTES = 1 << 20;
inline constexpr std::uint64_t DATA_OFFSET = MANIFEST_OFFSET + MANIFEST_BYTES;
inline constexpr std::uint32_t READER_SLOTS = 16;
#if defined(LOB_TINY_RINGS)  // for model checking: a lap within four records
inline constexpr std::uint64_t CAPACITY_MIN_BYTES = 512;
#else
inline constexpr std::uint64_t CAPACITY_MIN_BYTES = 4096;
#endif
inline constexpr std::uint64_t CAPACITY_MAX_BYTES = 1ull << 36;
static_assert(QUEUE_OFFSET + QUEUE_SLOTS * QUEUE_SLOT_BYTES <= MANIFEST_OFFSET);

// What a writer must know to go on where its predecessor stopped. Two of them, written in turn before the
// tail: the one whose `tail` equals the published tail is the true one; of two such (a commit without bytes),
// the one with the higher turn. `turn` is 0 while the others are being written.
template <class A>
struct Checkpoint {
    typename A::template atomic<std::uint64_t> tail;
    typename A::template atomic<std::uint64_t> next_seq;
    typename A::template atomic<std::uint64_t> raw_seq;  // last raw record whose events are all published
    typename A::template atomic<std::uint64_t> turn;
};

template <class A>
struct ReaderSlot {
    typename A::template atomic<std::uint64_t> position;  // released up to here
    typename A::template atomic<std::uint32_t> state;     // 0 free, 1 registered
    typename A::template atomic<std::uint32_t> pid;
    typename A::template atomic<std::uint64_t> lost;  // records this reader was lapped by
    typename A::template atomic<std::uint64_t> seq;   // ring_seq of the last record released
    char name[32];
    char pad[64];
};
static_assert(sizeof(ReaderSlot<StdAtomics>) == 128);

template <class A>
struct SegmentHeader {
    template <class T>
    using atomic = typename A::template atomic<T>;

    // written once, before the segment has a name
    char magic[8];
    std::uint32_t layout_version;
    std::uint32_t kind;
    std::uint32_t policy;
    std::uint32_t header_bytes;
    std::uint64_t schema_hash;
    std::uint64_t segment_bytes;
    std::uint64_t capacity_bytes;  // ring: power of two; board: slots * slot size
    std::uint64_t data_offset;
    std::uint64_t nonce;  // tells this segment from another of the same name
    std::uint32_t board_slots;
    std::uint32_t board_depth;
    std::uint64_t first_position;  // where the ring began: 0, or close below a power of two in tests
    char pad0[48];
    // 128: control, written rarely
    atomic<std::uint64_t> epoch;
    atomic<std::uint32_t> state;  // RingState
    atomic<std::uint32_t> writer_pid;
    atomic<std::int64_t> heartbeat_ns;  // CLOCK_MONOTONIC of the writer's last sign of life
    atomic<std::uint64_t> manifest_version;
    char pad1[96];
    // 256: published by the writer at each commit
    atomic<std::uint64_t> tail;    // bytes committed since ever
    atomic<std::uint64_t> intent;  // bytes that may be under construction; never lowered
    atomic<std::uint64_t> latest;  // position of the newest committed record: where a lapped reader resumes
    char pad2[104];
    // 384: the writer's own
    Checkpoint<A> checkpoint[2];
    char pad3[64];
    // 512, 640: who sleeps
    atomic<std::uint32_t> reader_sleep;
    char pad4[124];
    atomic<std::uint32_t> writer_sleep;
    char pad5[124];
    // 768: counters of the writer
    atomic<std::uint64_t> records;
    atomic<std::uint64_t> bytes;
    atomic<std::uint64_t> drops;
    atomic<std::uint64_t> full_waits;  // times the writer found the ring full under `wait`
    char pad6[224];
    // 1024
    ReaderSlot<A> readers[READER_SLOTS];
    char pad7[1024];
};
using Header = SegmentHeader<DefaultAtomics>;
static_assert(sizeof(Header) == HEADER_BYTES);
static_assert(offsetof(Header, epoch) == 128 && offsetof(Header, tail) == 256 && offsetof(Header, checkpoint) == 384);
static_assert(offsetof(Header, reader_sleep) == 512 && offsetof(Header, writer_sleep) == 640);
static_assert(offsetof(Header, records) == 768 && offsetof(Header, readers) == 1024);

// A segment that is not what it should be: another layout, cut short, or garbage.
struct LayoutError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline constexpr std::uint32_t BOARD_SLOT_HEADER_BYTES = 192;
constexpr std::uint64_t board_slot_bytes(std::uint32_t depth) {
    return (BOARD_SLOT_HEADER_BYTES + 2ull * depth * sizeof(Level) + 127) / 128 * 128;
}

class Segment {
public:
    static std::uint64_t size_for(std::uint64_t capacity_bytes) { return DATA_OFFSET + capacity_bytes; }

    // Lays out an empty segment in a file that already has its full size.
    static void format(int fd, Kind kind, Policy policy, std::uint64_t capacity_bytes, std::uint64_t nonce,
                       std::uint32_t board_slots, std::uint32_t board_depth, std::uint64_t first_position) {
        const std::uint64_t bytes = size_for(capacity_bytes);
        void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (base == MAP_FAILED) throw std::runtime_error(std::string("mmap: ") + std::strerror(errno));
        auto* header = static_cast<Header*>(base);
        std::memcpy(header->magic, MAGIC, sizeof MAGIC);
        header->layout_version = LAYOUT_VERSION;
        header->kind = static_cast<std::uint32_t>(kind);
        header->policy = static_cast<std::uint32_t>(policy);
        header->header_bytes = HEADER_BYTES;
        header->schema_hash = schema_hash();
        header->segment_bytes = bytes;
        header->capacity_bytes = capacity_bytes;
        header->data_offset = DATA_OFFSET;
        header->nonce = nonce;
        header->board_slots = board_slots;
        header->board_depth = board_depth;
        header->first_position = first_position;
        // Seconds, not zero: a ring made anew under an old name shows an epoch its readers have not seen.
        header->epoch.store(static_cast<std::uint64_t>(unix_ns() / 1'000'000'000) & 0x7FFFFFFF);
        header->heartbeat_ns.store(mono_ns());
        header->state.store(static_cast<std::uint32_t>(RingState::paused));
        header->tail.store(first_position);
        header->intent.store(first_position);
        header->latest.store(first_position);
        header->checkpoint[0].tail.store(first_position);
        header->checkpoint[0].next_seq.store(1);
        header->checkpoint[0].turn.store(2);
        // The stage downstream has its slot from the first moment, so under `wait` nothing is lost before it attaches.
        if (kind == Kind::spsc || (kind == Kind::broadcast && policy == Policy::wait)) {
            std::strncpy(header->readers[0].name, "downstream", sizeof header->readers[0].name - 1);
            header->readers[0].position.store(first_position);
            header->readers[0].state.store(1);
        }
        munmap(base, bytes);
    }

    // Maps and checks; throws LayoutError with the reason.
    Segment(int fd, bool writable) : writable_(writable) {
        struct stat info {};
        if (fstat(fd, &info) != 0) throw std::runtime_error(std::string("fstat: ") + std::strerror(errno));
        const auto file_bytes = static_cast<std::uint64_t>(info.st_size);
        if (file_bytes < sizeof(Header)) throw LayoutError("is cut short: " + std::to_string(file_bytes) + " bytes, no header");
        // Who works in it has its pages at hand from the start: the first lap of a ring would pay a fault a page.
        if (const int error = pages_.map(fd, file_bytes, writable, writable); error != 0)
            throw std::runtime_error(std::string("mmap: ") + std::strerror(error));
        check(file_bytes);
    }

    Header& header() const { return *reinterpret_cast<Header*>(pages_.base()); }
    std::byte* data() const { return pages_.base() + DATA_OFFSET; }
    std::byte* queue() const { return pages_.base() + QUEUE_OFFSET; }
    std::uint64_t capacity_bytes() const { return capacity_bytes_; }
    std::uint32_t board_slots() const { return board_slots_; }
    std::uint32_t board_depth() const { return board_depth_; }
    Kind kind() const { return kind_; }
    Policy policy() const { return policy_; }
    bool writable() const { return writable_; }
    Pages& pages() { return pages_; }

    // Half n of the manifest: {u32 size, u32 size ^ 0xFFFFFFFF, text}.
    static constexpr std::uint64_t MANIFEST_TEXT_MAX_BYTES = MANIFEST_BYTES / 2 - 16;

    void write_manifest(const char* text, std::size_t size) {
        if (size > MANIFEST_TEXT_MAX_BYTES) throw std::length_error("manifest of " + std::to_string(size) + " bytes");
        Header& h = header();
        const std::uint64_t version = h.manifest_version.load(std::memory_order_relaxed) + 1;
        std::byte* half = pages_.base() + MANIFEST_OFFSET + (version & 1) * (MANIFEST_BYTES / 2);
        const std::uint32_t sizes[2] = {static_cast<std::uint32_t>(size), ~static_cast<std::uint32_t>(size)};
        DefaultAtomics::fence(std::memory_order_release);  // M3 pairs with M4: words of this half imply the version before
        copy_words(half, sizes, sizeof sizes);
        copy_words(half + 16, text, size);
        h.manifest_version.store(version, std::memory_order_release);  // M1 pairs with M2
    }

    // The newest whole manifest; empty if there is none yet. Retries while the writer overtakes it.
    std::string read_manifest() const {
        const Header& h = header();
        for (int attempt = 0; attempt < 100; ++attempt) {
            const std::uint64_t version = h.manifest_version.load(std::memory_order_acquire);  // M2
            if (version == 0) return {};
            const std::byte* half = pages_.base() + MANIFEST_OFFSET + (version & 1) * (MANIFEST_BYTES / 2);
            std::uint32_t sizes[2];
            read_words(sizes, half, sizeof sizes);
            DefaultAtomics::fence(std::memory_order_acquire);  // M4
            if (sizes[0] == ~sizes[1] && sizes[0] <= MANIFEST_TEXT_MAX_BYTES) {
                std::string text(sizes[0], '\0');
                read_words(text.data(), half + 16, text.size());
                DefaultAtomics::fence(std::memory_order_acquire);  // M4
                if (h.manifest_version.load(std::memory_order_relaxed) == version) return text;
            } else if (h.manifest_version.load(std::memory_order_relaxed) == version) {
                throw LayoutError("has a corrupt manifest");
            }
        }
        throw LayoutError("has a manifest that never holds still");
    }

private:
    void check(std::uint64_t file_bytes) {
        const Header& h = header();
        if (std::memcmp(h.magic, MAGIC, sizeof MAGIC) != 0) throw LayoutError("is no ring of ours (wrong magic)");
        if (h.layout_version != LAYOUT_VERSION)
            throw LayoutError("has layout " + std::to_string(h.layout_version) + ", this build reads " +
                              std::to_string(LAYOUT_VERSION));
        if (h.schema_hash != schema_hash()) throw LayoutError("holds records of another build");
        if (h.header_bytes != HEADER_BYTES || h.data_offset != DATA_OFFSET) throw LayoutError("has a header of another shape");
        if (h.kind < 1 || h.kind > 3) throw LayoutError("is of unknown kind " + std::to_string(h.kind));
        if (h.policy > 1) throw LayoutError("has unknown policy " + std::to_string(h.policy));
        const std::uint64_t capacity = h.capacity_bytes;
        if (capacity > CAPACITY_MAX_BYTES || size_for(capacity) != h.segment_bytes || h.segment_bytes != file_bytes)
            throw LayoutError("is cut short or grown: " + std::to_string(file_bytes) + " bytes, its header says " +
                              std::to_string(h.segment_bytes));
        kind_ = static_cast<Kind>(h.kind);
        policy_ = static_cast<Policy>(h.policy);
        if (kind_ == Kind::board) {
            if (h.board_depth > 4096 || h.board_slots > 1u << 20 || h.board_slots * board_slot_bytes(h.board_depth) != capacity)
                throw LayoutError("is a board of inconsistent size");
        } else if (capacity < CAPACITY_MIN_BYTES || (capacity & (capacity - 1)) != 0) {
            throw LayoutError("has capacity " + std::to_string(capacity) + ", no power of two");
        }
        capacity_bytes_ = capacity;
        board_slots_ = h.board_slots;
        board_depth_ = h.board_depth;
    }

    static void copy_words(std::byte* to, const void* from, std::size_t size) {
        const auto* bytes = static_cast<const std::byte*>(from);
        for (std::size_t at = 0; at < size; at += 8) {
            std::uint64_t word = 0;
            std::memcpy(&word, bytes + at, size - at < 8 ? size - at : 8);
            DefaultAtomics::store_word(reinterpret_cast<Word*>(to + at), word);
        }
    }
    static void read_words(void* to, const std::byte* from, std::size_t size) {
        auto* bytes = static_cast<std::byte*>(to);
        for (std::size_t at = 0; at < size; at += 8) {
            const std::uint64_t word = DefaultAtomics::load_word(reinterpret_cast<const Word*>(from + at));
            std::memcpy(bytes + at, &word, size - at < 8 ? size - at : 8);
        }
    }

    Pages pages_;
    bool writable_;
    Kind kind_{};
    Policy policy_{};
    std::uint64_t capacity_bytes_ = 0;
    std::uint32_t board_slots_ = 0;
    std::uint32_t board_depth_ = 0;
};

}  // namespace lob

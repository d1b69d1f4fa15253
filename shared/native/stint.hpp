// stint.hpp - how long a native loop works before it goes back to Python.
//
// Python's turn between two native calls costs about 0.1 ms, most of it because its code and data have left the caches
// meanwhile; no message moves in it. A turn each 50 ms in each of three stages is what one message in a hundred meets at
// 50,000 a second. So while records flow a loop goes on for longer, gives the signs of life itself, and comes back early when
// somebody downstream has asked for something (Python passes requests on). Where nothing flows it comes back after a
// short wait: a turn costs nobody anything then, and silence is what Python looks for.
#pragma once

#include <cstdint>

#include "clock.hpp"
#include "fixed_queue.hpp"

namespace lob {

class Stint {
public:
    static constexpr std::uint32_t RECORDS_PER_LOOK = 32;  // between two looks at the clock, unless there was a wait
    static constexpr std::uint64_t BYTES_PER_LOOK = 1 << 20;  // ... or of large ones: 32 deep snapshots take lob-book 0.3 s
    static constexpr std::int64_t BEAT_NS = 20'000'000;

    explicit Stint(std::int64_t length_ns) : deadline_ns_(mono_ns() + length_ns) {}

    std::int64_t left_ns() const { return deadline_ns_ - mono_ns(); }

    // Whether to look at the clock in this turn; `did` tells what the turns before have worked through.
    bool due(std::uint32_t turn) const { return turn % RECORDS_PER_LOOK == 0 || bytes_ >= BYTES_PER_LOOK; }
    void did(std::uint64_t bytes) { bytes_ += bytes; }

    // Whether it is time to go back. `beat(now_ns)` is called when signs of life are due; true: a reader has asked.
    template <class Beat>
    bool over(Beat&& beat) {
        const std::int64_t now_ns = mono_ns();
        bytes_ = 0;
        if (now_ns >= next_beat_ns_) {
            next_beat_ns_ = now_ns + BEAT_NS;
            if (beat(now_ns)) return true;
        }
        return now_ns >= deadline_ns_;
    }

    // A sign of life of a ring's or board's writer; whether a request lies there.
    template <class Writer>
    static bool beat(const Writer& writer, std::int64_t now_ns) {
        writer.segment().header().heartbeat_ns.store(now_ns, std::memory_order_relaxed);
        return RequestQueue<>::filled(RequestQueue<>::storage(writer.segment()));
    }

private:
    const std::int64_t deadline_ns_;
    std::int64_t next_beat_ns_ = 0;
    std::uint64_t bytes_ = 0;
};

}  // namespace lob

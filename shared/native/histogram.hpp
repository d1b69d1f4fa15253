// histogram.hpp - counts of durations in buckets that grow with the value (log-linear, as HdrHistogram's).
//
// Shape      durations from 0 to 2^32-1 ns; above: counted as the largest. Below 256 a bucket is one value wide, above
//            that every power of two has 128 buckets, so a bucket is at most 1/128 of its value wide.
//                bucket = 128 * shift + (value >> shift),  shift = max(0, bits of value - 8)
// Invariant  counts are exact and only rise; the sum of the counts is the number of values.
// Who        one writer; any number of readers in other processes, which stop nobody. A reader gets each count at some
//            moment of its reading: the difference of two readings is exact for what came in between and for nothing
//            else, to within the values recorded during the readings.
// Merging    is adding the counts; lob_trace/histogram.py does that, and knows the same rule.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace lob {

struct alignas(128) Histogram {
    static constexpr std::uint32_t SUB = 128;
    static constexpr std::uint64_t VALUE_MAX = 0xFFFFFFFFu;
    static constexpr std::uint32_t BUCKETS = 26 * SUB;

    static constexpr std::uint32_t bucket_of(std::uint64_t value) {
        value = std::min(value, VALUE_MAX);
        const int bits = static_cast<int>(std::bit_width(value));
        const int shift = bits > 8 ? bits - 8 : 0;
        return SUB * static_cast<std::uint32_t>(shift) + static_cast<std::uint32_t>(value >> shift);
    }

    void record(std::uint64_t value) {
        bump(counts[bucket_of(value)]);
        if (value > max.load(std::memory_order_relaxed)) max.store(value, std::memory_order_relaxed);
    }

    std::atomic<std::uint64_t> max{0};
    char pad[120];
    std::array<std::atomic<std::uint64_t>, BUCKETS> counts{};

private:
    // One writer: a plain add, no read-modify-write.
    static void bump(std::atomic<std::uint64_t>& count) {
        count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
};
static_assert(Histogram::bucket_of(255) == 255 && Histogram::bucket_of(256) == 256 && Histogram::bucket_of(258) == 257);
static_assert(Histogram::bucket_of(Histogram::VALUE_MAX) == Histogram::BUCKETS - 1);
static_assert(offsetof(Histogram, counts) == 128 && sizeof(Histogram) == 128 + 8 * Histogram::BUCKETS);

}  // namespace lob

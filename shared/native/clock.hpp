// clock.hpp - the two clocks. Never subtract one from the other.
#pragma once

#include <cstdint>
#include <ctime>

namespace lob {

inline std::int64_t read_clock_ns(clockid_t id) noexcept {
    timespec now{};
    clock_gettime(id, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

// CLOCK_MONOTONIC: the same in every process of a host; for durations.
inline std::int64_t mono_ns() noexcept { return read_clock_ns(CLOCK_MONOTONIC); }

// CLOCK_REALTIME: Unix time; for what people and venues call time.
inline std::int64_t unix_ns() noexcept { return read_clock_ns(CLOCK_REALTIME); }

// A stage's stamp in RecordHeader::stage_ns: ns since the origin, at least 1, saturating at 4.29 s.
inline std::uint32_t stage_stamp(std::int64_t origin_ns, std::int64_t now_mono_ns) noexcept {
    const std::int64_t elapsed_ns = now_mono_ns - origin_ns;
    if (elapsed_ns < 1) return 1;
    return elapsed_ns > 0xFFFFFFFFll ? 0xFFFFFFFFu : static_cast<std::uint32_t>(elapsed_ns);
}

}  // namespace lob

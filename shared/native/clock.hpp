// clock.hpp - the two clocks. Never subtract one from the other.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace lob {

inline std::int64_t read_clock_ns(clockid_t id) noexcept {
    timespec now{};
    clock_gettime(id, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

// CLOCK_MONOTONIC: the same in every process of a host; for durations.
inline std::int64_t mono_ns() noexcept { return read_clock_ns(CLOCK_MONOTONIC); }

// Whether the time-stamp counter is one clock for all cores: it runs at one rate in every sleep state (CPUID), and the
// kernel tells the time by it, which it ceases to do when it finds two cores apart.
inline bool tsc_is_a_clock() noexcept {
#if defined(__x86_64__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(0x80000007, &a, &b, &c, &d) == 0 || (d & (1u << 8)) == 0) return false;
    std::FILE* file = std::fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (file == nullptr) return false;
    char name[16] = {};
    const bool read = std::fgets(name, sizeof name, file) != nullptr;
    std::fclose(file);
    return read && std::strcmp(name, "tsc\n") == 0;
#else
    return false;
#endif
}

// Ticks of that counter, for differences between trace points only; `tsc` false: ns of CLOCK_MONOTONIC. Everything that
// is stamped into records stays with mono_ns(): the kernel's page for it holds one calibration for all processes,
// corrected as it drifts, and a second one of ours would save 15 ns a call and part from it in time.
inline std::uint64_t ticks([[maybe_unused]] bool tsc) noexcept {
#if defined(__x86_64__)
    if (tsc) return __rdtsc();
#endif
    return static_cast<std::uint64_t>(mono_ns());
}

// Both clocks at one moment; of several tries the one that took least.
struct ClockPair {
    std::uint64_t ticks;
    std::int64_t mono_ns;
};
inline ClockPair clock_pair(bool tsc, int tries = 16) noexcept {
    ClockPair best{};
    std::uint64_t least = UINT64_MAX;
    for (int i = 0; i < tries; ++i) {
        const std::uint64_t before = ticks(tsc);
        const std::int64_t now_ns = mono_ns();
        const std::uint64_t took = ticks(tsc) - before;
        if (took < least) {
            least = took;
            best = {before + took / 2, now_ns};
        }
    }
    return best;
}

// CLOCK_REALTIME: Unix time; for what people and venues call time.
inline std::int64_t unix_ns() noexcept { return read_clock_ns(CLOCK_REALTIME); }

// A stage's stamp in RecordHeader::stage_ns: ns since the origin, at least 1, saturating at 4.29 s.
inline std::uint32_t stage_stamp(std::int64_t origin_ns, std::int64_t now_mono_ns) noexcept {
    const std::int64_t elapsed_ns = now_mono_ns - origin_ns;
    if (elapsed_ns < 1) return 1;
    return elapsed_ns > 0xFFFFFFFFll ? 0xFFFFFFFFu : static_cast<std::uint32_t>(elapsed_ns);
}

}  // namespace lob

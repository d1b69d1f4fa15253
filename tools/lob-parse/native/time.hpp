// time.hpp - the venue's clock: an integer of some unit, or RFC 3339 text in UTC, -> Unix nanoseconds.
#pragma once

#include "plan.hpp"

namespace lob::parse {

// Days from 1970-01-01 to a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
constexpr std::int64_t days_from_civil(std::int64_t year, unsigned month, unsigned day) {
    year -= month <= 2;
    const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
    const auto year_of_era = static_cast<unsigned>(year - era * 400);
    const unsigned day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    const unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + static_cast<std::int64_t>(day_of_era) - 719468;
}

// "2026-08-09T21:05:48.228568804Z", up to nine decimals, years 1970 to 2199. A leap second counts as the next second.
inline bool rfc3339_ns(const char* at, const char* end, std::int64_t& ns) {
    if (end - at < 20 || end[-1] != 'Z') return false;
    --end;
    const auto number = [&](int from, int count, unsigned& out) {
        out = 0;
        for (int i = from; i < from + count; ++i) {
            const unsigned digit = static_cast<unsigned char>(at[i]) - unsigned{'0'};
            if (digit > 9) return false;
            out = out * 10 + digit;
        }
        return true;
    };
    unsigned year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
    if (!number(0, 4, year) || !number(5, 2, month) || !number(8, 2, day) || !number(11, 2, hour) || !number(14, 2, minute) ||
        !number(17, 2, second))
        return false;
    if (at[4] != '-' || at[7] != '-' || at[10] != 'T' || at[13] != ':' || at[16] != ':') return false;
    constexpr unsigned DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (year < 1970 || year > 2199 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 60) return false;
    const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day < 1 || day > DAYS[month - 1] + (leap && month == 2 ? 1 : 0)) return false;
    std::int64_t fraction = 0;
    at += 19;
    if (at != end) {
        const std::ptrdiff_t digits = end - at - 1;
        if (*at != '.' || digits < 1 || digits > 9) return false;
        for (++at; at != end; ++at) {
            const unsigned digit = static_cast<unsigned char>(*at) - unsigned{'0'};
            if (digit > 9) return false;
            fraction = fraction * 10 + digit;
        }
        fraction *= static_cast<std::int64_t>(POW10[9 - digits]);
    }
    ns = ((days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    ns = ns * 1'000'000'000 + fraction;
    return true;
}

inline bool unix_time_ns(std::uint64_t value, TimeUnit unit, std::int64_t& ns) {
    constexpr std::uint64_t NS[] = {1'000'000'000, 1'000'000, 1'000, 1};
    const std::uint64_t factor = NS[static_cast<unsigned>(unit)];
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / factor) return false;
    ns = static_cast<std::int64_t>(value * factor);
    return true;
}

}  // namespace lob::parse

// decimal.hpp - the text of a number -> an integer and how many of its digits are decimals. Exact or an error.
//
// The grammar is JSON's, for bare numbers and for those in quotes: -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?
// "61737.63000000" -> 6173763000000 with 8 decimals: the digits as written, because checksums want them so.
// Only where they would not fit are trailing zeros given up. An exponent is applied: "4.9e-7" -> 49 with 8.
//
// The fast form takes up to 8 digits before and 8 after the point, eight at a time in one 64-bit word; it is
// called twice a level. Everything else goes to the plain form below it.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

namespace lob::parse {

static_assert(std::endian::native == std::endian::little, "digits are read as little-endian words");

inline constexpr std::size_t NUMBER_MAX_CHARS = 64;
inline constexpr std::uint8_t SCALE_MAX = 18;  // 10^18 is the largest power of ten in int64
inline constexpr std::int64_t MAGNITUDE_MAX = 300;  // bare numbers of 1e300 and more are no numbers of a book

struct Decimal {
    std::uint64_t mantissa = 0;
    std::uint8_t decimals = 0;  // value = mantissa / 10^decimals
    bool negative = false;
};

inline constexpr std::array<std::uint64_t, 20> POW10 = [] {
    std::array<std::uint64_t, 20> table{};
    table[0] = 1;
    for (std::size_t i = 1; i < table.size(); ++i) table[i] = table[i - 1] * 10;
    return table;
}();

// n / 10^k without a division: n * (1/5^k) modulo 2^64, rotated right by k, is the quotient if it divides, and
// larger than (2^64-1) / 10^k if not (Granlund and Montgomery, "Division by invariant integers", section 9).
inline constexpr std::array<std::uint64_t, 20> INVERSE_POW5 = [] {
    std::array<std::uint64_t, 20> table{};
    table[0] = 1;
    for (std::size_t i = 1; i < table.size(); ++i) table[i] = table[i - 1] * 0xCCCCCCCCCCCCCCCDull;  // 1/5
    return table;
}();
inline constexpr std::array<std::uint64_t, 20> QUOTIENT_MAX = [] {
    std::array<std::uint64_t, 20> table{};
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = std::numeric_limits<std::uint64_t>::max() / POW10[i];
    return table;
}();

// n / 10^k, k <= 19, if it divides; else false and n stays.
inline bool divide_exactly(std::uint64_t& n, unsigned k) {
    const std::uint64_t quotient = std::rotr(n * INVERSE_POW5[k], static_cast<int>(k));
    if (quotient > QUOTIENT_MAX[k]) return false;
    n = quotient;
    return true;
}

enum class Fit : std::uint8_t { ok, finer, range };

// The mantissa of the same value at `scale`. finer: it has more decimals; range: it does not fit int64.
inline Fit to_scale(std::uint64_t& mantissa, std::uint8_t& decimals, std::uint8_t scale) {
    if (decimals > scale) {
        const unsigned down = decimals - scale;
        if (mantissa != 0 && (down > 19 || !divide_exactly(mantissa, down))) return Fit::finer;
    } else if (decimals < scale) {
        const unsigned up = scale - decimals;
        if (mantissa > (static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / POW10[up])) return Fit::range;
        mantissa *= POW10[up];
    }
    decimals = scale;
    return mantissa > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) ? Fit::range : Fit::ok;
}

// Decimals without trailing zeros.
inline std::uint8_t needed_decimals(std::uint64_t mantissa, std::uint8_t decimals) {
    if (mantissa == 0) return 0;
    while (decimals > 0 && divide_exactly(mantissa, 1)) --decimals;
    return decimals;
}

inline std::uint64_t load8(const char* at) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, sizeof word);
    return word;
}

// A set high bit in the lowest byte that is no digit (and perhaps in bytes above it); `word` is text ^ "00000000".
inline std::uint64_t non_digits(std::uint64_t word) {
    return ((word + 0x7676767676767676ull) | word) & 0x8080808080808080ull;
}
inline unsigned digit_count(std::uint64_t word) {
    const std::uint64_t others = non_digits(word);
    return others == 0 ? 8 : static_cast<unsigned>(std::countr_zero(others)) >> 3;
}
// The number of the first `count` digits (1..8) of a word of digits, least significant byte first.
inline std::uint64_t digits_value(std::uint64_t word, unsigned count) {
    word <<= 64 - 8 * count;
    word = word * 10 + (word >> 8);
    return ((word & 0x000000FF000000FFull) * 0x000F424000000064ull + ((word >> 16) & 0x000000FF000000FFull) * 0x0000271000000001ull) >> 32;
}

inline constexpr std::ptrdiff_t FAST_DECIMAL_BYTES = 18;  // what fast_decimal may look at

// Reads "[0-9]{1,8}(\.[0-9]{1,8})?" and gives the place after it; null: not of this form, try read_decimal.
// The caller makes sure that FAST_DECIMAL_BYTES can be read and looks at what follows.
inline const char* fast_decimal(const char* at, std::uint64_t& mantissa, std::uint8_t& decimals) {
    const std::uint64_t whole = load8(at) ^ 0x3030303030303030ull;
    const unsigned whole_count = digit_count(whole);
    if (whole_count == 0 || ((whole & 0xFF) == 0 && whole_count > 1)) [[unlikely]] return nullptr;
    mantissa = digits_value(whole, whole_count);
    at += whole_count;
    if (*at != '.') {
        decimals = 0;
        return at;
    }
    const std::uint64_t part = load8(at + 1) ^ 0x3030303030303030ull;
    const unsigned part_count = digit_count(part);
    if (part_count == 0) [[unlikely]] return nullptr;
    mantissa = mantissa * POW10[part_count] + digits_value(part, part_count);
    decimals = static_cast<std::uint8_t>(part_count);
    return at + 1 + part_count;
}

inline constexpr std::ptrdiff_t FAST_UNSIGNED_BYTES = 17;  // what fast_unsigned may look at

// Reads an integer of up to 16 digits; the rest as for fast_decimal.
inline const char* fast_unsigned(const char* at, std::uint64_t& value) {
    const std::uint64_t high = load8(at) ^ 0x3030303030303030ull;
    const unsigned high_count = digit_count(high);
    if (high_count == 0 || ((high & 0xFF) == 0 && high_count > 1)) [[unlikely]] return nullptr;
    value = digits_value(high, high_count);
    if (high_count < 8) return at + high_count;
    const std::uint64_t low = load8(at + 8) ^ 0x3030303030303030ull;
    const unsigned low_count = digit_count(low);
    if (low_count != 0) value = value * POW10[low_count] + digits_value(low, low_count);
    return at + 8 + low_count;
}

enum class Number : std::uint8_t { ok, syntax, range };

// Reads the number that begins at `at` and moves `at` behind it. range: it is one, but does not fit.
// `magnitude`: power of ten of its first digit that is not 0.
inline Number read_decimal(const char*& at, const char* end, Decimal& out, std::int64_t& magnitude) {
    const char* const begin = at;
    out = Decimal{};
    magnitude = std::numeric_limits<std::int64_t>::min();
    if (at != end && *at == '-') {
        out.negative = true;
        ++at;
    }
    std::uint64_t mantissa = 0;
    std::int64_t zeros = 0;  // trailing zeros that are not in the mantissa yet
    bool overflow = false;
    const auto push = [&](char digit) {
        if (digit == '0') {
            ++zeros;
            return;
        }
        const auto value = static_cast<std::uint64_t>(digit - '0');
        if (mantissa == 0) zeros = 0;
        if (zeros + 1 > 19 || mantissa > (std::numeric_limits<std::uint64_t>::max() - value) / POW10[zeros + 1]) overflow = true;
        else mantissa = mantissa * POW10[zeros + 1] + value;
        zeros = 0;
    };
    const char* const whole = at;
    while (at != end && *at >= '0' && *at <= '9') push(*at++);
    const std::int64_t whole_count = at - whole;
    if (whole_count == 0 || (whole_count > 1 && *whole == '0')) return Number::syntax;
    if (*whole != '0') magnitude = whole_count - 1;
    std::int64_t decimals = 0;
    if (at != end && *at == '.') {
        const char* const part = ++at;
        while (at != end && *at >= '0' && *at <= '9') {
            if (magnitude == std::numeric_limits<std::int64_t>::min() && *at != '0') magnitude = -(at - part + 1);
            push(*at++);
        }
        decimals = at - part;
        if (decimals == 0) return Number::syntax;
    }
    if (at != end && (*at == 'e' || *at == 'E')) {
        ++at;
        bool below = false;
        if (at != end && (*at == '-' || *at == '+')) below = *at++ == '-';
        const char* const power = at;
        std::int64_t exponent = 0;
        while (at != end && *at >= '0' && *at <= '9') {
            if (exponent < 100'000) exponent = exponent * 10 + (*at - '0');
            ++at;
        }
        if (at == power) return Number::syntax;
        if (below) exponent = -exponent;
        decimals -= exponent;
        if (magnitude != std::numeric_limits<std::int64_t>::min()) magnitude += exponent;
    }
    if (at - begin > static_cast<std::ptrdiff_t>(NUMBER_MAX_CHARS)) return Number::syntax;
    if (overflow) return Number::range;
    if (mantissa == 0) {
        out.decimals = static_cast<std::uint8_t>(decimals < 0 ? 0 : decimals > 255 ? 255 : decimals);
        out.negative = false;
        return Number::ok;
    }
    // Put the trailing zeros back: those before the point must be, those behind it if they fit.
    decimals -= zeros;
    constexpr std::uint64_t MANTISSA_MAX = std::numeric_limits<std::int64_t>::max();
    while (zeros > 0 || decimals < 0) {
        if (mantissa > MANTISSA_MAX / 10 || decimals >= 255) {
            if (decimals < 0) return Number::range;
            break;
        }
        mantissa *= 10;
        ++decimals;
        --zeros;
    }
    if (decimals > 255 || mantissa > MANTISSA_MAX) return Number::range;
    out.mantissa = mantissa;
    out.decimals = static_cast<std::uint8_t>(decimals);
    return Number::ok;
}

// A text that must be a number from end to end.
inline Number decimal_of(const char* at, const char* end, Decimal& out) {
    std::int64_t magnitude = 0;
    const Number result = read_decimal(at, end, out, magnitude);
    return at == end ? result : Number::syntax;
}

// A text that must be an unsigned integer from end to end.
inline bool unsigned_of(const char* at, const char* end, std::uint64_t& out) {
    const std::ptrdiff_t size = end - at;
    if (size == 0 || size > 20 || (*at == '0' && size > 1)) return false;
    std::uint64_t value = 0;
    for (; at != end; ++at) {
        const unsigned digit = static_cast<unsigned char>(*at) - unsigned{'0'};
        if (digit > 9) return false;
        if (value > (std::numeric_limits<std::uint64_t>::max() - digit) / 10) return false;
        value = value * 10 + digit;
    }
    out = value;
    return true;
}

}  // namespace lob::parse

// scan.hpp - finding one's way in JSON text: blanks, strings, numbers, and values that are skipped but checked.
//
// Every function takes the place to start from and the end, never looks at or beyond the end, and returns the place
// behind what it read, or null if that is no JSON. Nothing allocates or recurses.
#pragma once

#include "decimal.hpp"

namespace lob::parse {

inline constexpr unsigned NESTING_MAX = 64;  // objects and arrays inside each other, the root counted

inline const char* skip_space(const char* at, const char* end) {
    while (at != end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) ++at;
    return at;
}

// One UTF-8 sequence of two to four bytes: no overlong form, no surrogate, nothing above U+10FFFF.
inline const char* skip_utf8(const char* at, const char* end) {
    const auto byte = [&](std::ptrdiff_t i) { return static_cast<unsigned char>(at[i]); };
    const auto follows = [&](std::ptrdiff_t i) { return (byte(i) & 0xC0) == 0x80; };
    const std::ptrdiff_t left = end - at;
    const unsigned first = byte(0);
    if (first < 0xC2) return nullptr;
    if (first < 0xE0) return left >= 2 && follows(1) ? at + 2 : nullptr;
    if (first < 0xF0) {
        if (left < 3 || !follows(1) || !follows(2)) return nullptr;
        if ((first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) > 0x9F)) return nullptr;
        return at + 3;
    }
    if (first > 0xF4 || left < 4 || !follows(1) || !follows(2) || !follows(3)) return nullptr;
    if ((first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) > 0x8F)) return nullptr;
    return at + 4;
}

// Four hexadecimal digits; -1 if they are none.
inline int hex4(const char* at, const char* end) {
    if (end - at < 4) return -1;
    int value = 0;
    for (int i = 0; i < 4; ++i) {
        const char c = at[i];
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

// A \uXXXX escape, or two that are a surrogate pair; `at` is behind the first backslash and 'u'.
inline const char* read_unicode_escape(const char* at, const char* end, std::uint32_t& code) {
    const int first = hex4(at, end);
    if (first < 0) return nullptr;
    at += 4;
    code = static_cast<std::uint32_t>(first);
    if (first < 0xD800 || first > 0xDFFF) return at;
    if (first > 0xDBFF || end - at < 6 || at[0] != '\\' || at[1] != 'u') return nullptr;
    const int second = hex4(at + 2, end);
    if (second < 0xDC00 || second > 0xDFFF) return nullptr;
    code = 0x10000u + ((static_cast<std::uint32_t>(first) - 0xD800u) << 10) + (static_cast<std::uint32_t>(second) - 0xDC00u);
    return at + 6;
}

inline const char* skip_escape(const char* at, const char* end) {  // `at` is behind the backslash
    if (at == end) return nullptr;
    switch (*at) {
        case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't': return at + 1;
        case 'u': {
            std::uint32_t code = 0;
            return read_unicode_escape(at + 1, end, code);
        }
        default: return nullptr;
    }
}

// From behind the opening quote to the closing one (not behind it). `escaped`: there are backslashes in between.
inline const char* scan_string(const char* at, const char* end, bool& escaped) {
    constexpr std::uint64_t ONES = 0x0101010101010101ull;
    constexpr std::uint64_t HIGHS = 0x8080808080808080ull;
    escaped = false;
    for (;;) {
        while (end - at >= 8) {
            const std::uint64_t word = load8(at);
            const std::uint64_t quote = word ^ (ONES * '"');
            const std::uint64_t slash = word ^ (ONES * '\\');
            // The lowest marked byte is a quote, a backslash, a control character or no ASCII.
            const std::uint64_t special =
                (((quote - ONES) & ~quote) | ((slash - ONES) & ~slash) | ((word - ONES * 0x20) & ~word) | word) & HIGHS;
            if (special != 0) {
                at += std::countr_zero(special) >> 3;
                break;
            }
            at += 8;
        }
        if (at == end) return nullptr;
        const auto c = static_cast<unsigned char>(*at);
        if (c == '"') return at;
        if (c == '\\') {
            escaped = true;
            at = skip_escape(at + 1, end);
        } else if (c < 0x20) {
            return nullptr;
        } else if (c >= 0x80) {
            at = skip_utf8(at, end);
        } else {
            ++at;
        }
        if (at == nullptr) return nullptr;
    }
}

// Writes a checked string without its escapes; never longer than the escaped form. Returns the end of the output.
inline char* unescape(const char* at, const char* end, char* to) {
    while (at != end) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        const char c = at[1];
        at += 2;
        switch (c) {
            case 'b': *to++ = '\b'; break;
            case 'f': *to++ = '\f'; break;
            case 'n': *to++ = '\n'; break;
            case 'r': *to++ = '\r'; break;
            case 't': *to++ = '\t'; break;
            case 'u': {
                std::uint32_t code = 0;
                at = read_unicode_escape(at, end, code);
                if (code < 0x80) {
                    *to++ = static_cast<char>(code);
                } else if (code < 0x800) {
                    *to++ = static_cast<char>(0xC0 | (code >> 6));
                    *to++ = static_cast<char>(0x80 | (code & 0x3F));
                } else if (code < 0x10000) {
                    *to++ = static_cast<char>(0xE0 | (code >> 12));
                    *to++ = static_cast<char>(0x80 | ((code >> 6) & 0x3F));
                    *to++ = static_cast<char>(0x80 | (code & 0x3F));
                } else {
                    *to++ = static_cast<char>(0xF0 | (code >> 18));
                    *to++ = static_cast<char>(0x80 | ((code >> 12) & 0x3F));
                    *to++ = static_cast<char>(0x80 | ((code >> 6) & 0x3F));
                    *to++ = static_cast<char>(0x80 | (code & 0x3F));
                }
                break;
            }
            default: *to++ = c;
        }
    }
    return to;
}

// A bare number; too long or of 1e300 and more is none.
inline const char* scan_number(const char* at, const char* end, Decimal& value, Number& result) {
    std::int64_t magnitude = 0;
    result = read_decimal(at, end, value, magnitude);
    return result == Number::syntax || magnitude >= MAGNITUDE_MAX ? nullptr : at;
}

inline const char* skip_word(const char* at, const char* end, const char* word, std::ptrdiff_t size) {
    return end - at >= size && std::memcmp(at, word, static_cast<std::size_t>(size)) == 0 ? at + size : nullptr;
}

// Any value that is neither object nor array.
inline const char* skip_scalar(const char* at, const char* end) {
    switch (*at) {
        case '"': {
            bool escaped = false;
            at = scan_string(at + 1, end, escaped);
            return at == nullptr ? nullptr : at + 1;
        }
        case 't': return skip_word(at, end, "true", 4);
        case 'f': return skip_word(at, end, "false", 5);
        case 'n': return skip_word(at, end, "null", 4);
        default: {
            Decimal value;
            Number result{};
            return scan_number(at, end, value, result);
        }
    }
}

// Any value, checked to the last byte. `depth`: how many objects and arrays are open around it.
inline const char* skip_value(const char* at, const char* end, unsigned depth) {
    std::uint64_t objects = 0;  // bit n: the n-th open container inside is an object
    unsigned open = 0;
    for (;;) {
        // a value is expected
        if (at == end) return nullptr;
        if (*at == '{' || *at == '[') {
            if (depth + open >= NESTING_MAX) return nullptr;
            const bool object = *at == '{';
            objects = (objects & ~(1ull << open)) | (static_cast<std::uint64_t>(object) << open);
            ++open;
            at = skip_space(at + 1, end);
            if (at == end) return nullptr;
            if (*at != (object ? '}' : ']')) {
                if (!object) continue;
                goto key;
            }
            ++at;
            --open;
        } else {
            at = skip_scalar(at, end);
            if (at == nullptr) return nullptr;
        }
        // a value is complete
        for (;;) {
            if (open == 0) return at;
            at = skip_space(at, end);
            if (at == end) return nullptr;
            const bool object = (objects >> (open - 1)) & 1;
            if (*at == ',') {
                at = skip_space(at + 1, end);
                if (!object) break;
                goto key;
            }
            if (*at != (object ? '}' : ']')) return nullptr;
            ++at;
            --open;
        }
        continue;
    key:
        if (at == end || *at != '"') return nullptr;
        bool escaped = false;
        at = scan_string(at + 1, end, escaped);
        if (at == nullptr) return nullptr;
        at = skip_space(at + 1, end);
        if (at == end || *at != ':') return nullptr;
        at = skip_space(at + 1, end);
    }
}

}  // namespace lob::parse

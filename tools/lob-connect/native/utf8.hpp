// utf8.hpp - whether bytes are UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF (RFC 3629).
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace lob {

inline bool is_utf8(std::string_view text) {
    const auto* at = reinterpret_cast<const unsigned char*>(text.data());
    const auto* const end = at + text.size();
    while (at != end) {
        // The usual case, ASCII, 64 bytes a step: the compiler makes vectors of it.
        while (end - at >= 64) {
            std::uint64_t words[8];
            std::memcpy(words, at, sizeof words);
            std::uint64_t any = 0;
            for (const std::uint64_t word : words) any |= word;
            if ((any & 0x8080808080808080ull) != 0) break;
            at += 64;
        }
        if (at == end) break;
        const unsigned char c = *at++;
        if (c < 0x80) continue;
        // c says how many bytes follow, and within what bounds the first of them lies.
        int follow = 0;
        unsigned char low = 0x80, high = 0xBF;
        if (c >= 0xC2 && c <= 0xDF) {
            follow = 1;
        } else if (c >= 0xE0 && c <= 0xEF) {
            follow = 2;
            if (c == 0xE0) low = 0xA0;   // shorter would do
            if (c == 0xED) high = 0x9F;  // a surrogate
        } else if (c >= 0xF0 && c <= 0xF4) {
            follow = 3;
            if (c == 0xF0) low = 0x90;
            if (c == 0xF4) high = 0x8F;
        } else {
            return false;
        }
        if (end - at < follow || *at < low || *at > high) return false;
        for (int i = 1; i < follow; ++i)
            if ((at[i] & 0xC0) != 0x80) return false;
        at += follow;
    }
    return true;
}

}  // namespace lob

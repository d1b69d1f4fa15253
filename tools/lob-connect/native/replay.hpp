// replay.hpp - the usual lines of a recording, straight from the text into the raw ring.
//
//   {"ts_ns":1723161253937085768,"conn":"ws","dir":"in","raw":"{\"stream\":..."}
//
// That is a frame of an open connection as lob-connect and its kin write it, all ASCII. Whatever differs by a byte (another
// key, another order, other characters, another direction, an unknown label) is left to the caller, who takes the line apart in
// full and knows what to say of a damaged one. So nothing is decided here, and a line taken here means what it would mean there.
#pragma once

#include <bit>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "raw.hpp"

namespace lob {

class LinePlayer {
public:
    struct Played {
        std::size_t offset;        // of the first line not played: the end, a line for the caller, or one that found no room
        std::uint64_t lines;
        std::uint64_t payload_bytes;
    };

    // Frames of this label go to that connection from now on; until close().
    void open(std::string_view label, std::uint16_t connection, std::uint32_t session) {
        close(label);
        lanes_.push_back({std::string(label), connection, session});
    }
    void close(std::string_view label) {
        std::erase_if(lanes_, [&](const Lane& lane) { return lane.label == label; });
    }

    // Plays whole lines of `text` from `offset` on, at most `lines_max`.
    Played play(SpscWriter<>& writer, std::string_view text, std::size_t offset, std::uint64_t lines_max) {
        Played played{offset, 0, 0};
        while (played.lines < lines_max) {
            const char* at = text.data() + played.offset;
            const char* const end = text.data() + text.size();
            const auto* newline = at == end ? nullptr : static_cast<const char*>(std::memchr(at, '\n', static_cast<std::size_t>(end - at)));
            if (newline == nullptr) break;
            std::int64_t recv_ns = 0;
            const Lane* lane = nullptr;
            if (!head({at, newline}, at, recv_ns, lane) || !unescape(at, newline)) break;
            const auto result =
                write_raw(writer, RecordType::raw_frame, lane->connection, lane->session, recv_ns, mono_ns(), {}, payload_);
            if (result != RawWrite::written) break;
            played.offset = static_cast<std::size_t>(newline + 1 - text.data());
            ++played.lines;
            played.payload_bytes += payload_.size();
        }
        return played;
    }

private:
    struct Lane {
        std::string label;
        std::uint16_t connection;
        std::uint32_t session;
    };

    static bool skip(const char*& at, const char* end, std::string_view word) {
        if (static_cast<std::size_t>(end - at) < word.size() || std::memcmp(at, word.data(), word.size()) != 0) return false;
        at += word.size();
        return true;
    }

    // Up to the text of `raw`; leaves `at` there.
    bool head(std::string_view line, const char*& at, std::int64_t& recv_ns, const Lane*& lane) const {
        at = line.data();
        const char* const end = line.data() + line.size();
        if (!skip(at, end, "{\"ts_ns\":")) return false;
        if (!skip(at, end, "null")) {
            const char* const digits = at;
            while (at != end && *at >= '0' && *at <= '9') recv_ns = recv_ns * 10 + (*at++ - '0');
            if (at == digits || at - digits > 18 + (*digits == '1') || (*digits == '0' && at - digits > 1)) return false;
        }
        if (!skip(at, end, ",\"conn\":\"")) return false;
        for (const Lane& candidate : lanes_) {
            const char* behind = at;
            if (skip(behind, end, candidate.label) && skip(behind, end, "\",\"dir\":\"in\",\"raw\":\"")) {
                at = behind;
                lane = &candidate;
                return at != end && *at != '"';  // an empty frame is the caller's
            }
        }
        return false;
    }

    // The string at `at`, which must be the line's last value, into payload_.
    bool unescape(const char* at, const char* end) {
        const std::size_t room = static_cast<std::size_t>(end - at) + RUN_BYTES;
        if (payload_room_.size() < room) payload_room_.resize(room);
        char* out = payload_room_.data();
        std::uint64_t escaped = 0;  // the first character of the block at hand, by the last one of the block before
        while (static_cast<std::size_t>(end - at) >= Block::BYTES + RUN_BYTES) {
            // Nearly always: escaped quotes and no other thing. What is left is the text without the backslashes; the places
            // of all of a block are known at once, so no copy waits for the one before.
            const Block block(at);
            if (block.others != 0 || block.quotes != (block.backslashes << 1 | escaped)) break;
            unsigned begin = 0;
            for (std::uint64_t left = block.backslashes; left != 0; left &= left - 1) {
                const auto end_of_run = static_cast<unsigned>(std::countr_zero(left));
                out = copy_run(out, at + begin, end_of_run - begin);
                begin = end_of_run + 1;
            }
            out = copy_run(out, at + begin, static_cast<unsigned>(Block::BYTES) - begin);
            escaped = block.backslashes >> (Block::BYTES - 1);
            at += Block::BYTES;
        }
        at -= escaped;
        for (;;) {
            if (at == end) return false;
            const char c = *at;
            if (c == '"') break;
            if (c == '\\') {
                if (end - at < 2) return false;
                char plain = 0;
                switch (at[1]) {
                    case '"': plain = '"'; break;
                    case '\\': plain = '\\'; break;
                    case '/': plain = '/'; break;
                    case 'n': plain = '\n'; break;
                    case 'r': plain = '\r'; break;
                    case 't': plain = '\t'; break;
                    case 'b': plain = '\b'; break;
                    case 'f': plain = '\f'; break;
                    default: return false;  // \u: the caller knows surrogates
                }
                *out++ = plain;
                at += 2;
                continue;
            }
            if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x80) return false;
            *out++ = c;
            ++at;
        }
        if (end - at != 2 || at[1] != '}') return false;
        payload_ = {payload_room_.data(), static_cast<std::size_t>(out - payload_room_.data())};
        return true;
    }

    // Where in 64 characters those are that do not stand for themselves; the first is bit 0.
    struct Block {
        static constexpr std::size_t BYTES = 64;
        std::uint64_t quotes = 0, backslashes = 0, others = 0;  // others: control characters, and what is not ASCII

        explicit Block(const char* at) {
#if defined(__SSE2__)
            for (unsigned i = 0; i < BYTES; i += 16) {
                const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + i));
                const auto where = [&](__m128i equal) { return std::uint64_t{static_cast<unsigned>(_mm_movemask_epi8(equal))} << i; };
                quotes |= where(_mm_cmpeq_epi8(part, _mm_set1_epi8('"')));
                backslashes |= where(_mm_cmpeq_epi8(part, _mm_set1_epi8('\\')));
                others |= where(_mm_cmplt_epi8(part, _mm_set1_epi8(0x20)));  // signed: what is not ASCII is below zero
            }
#else
            for (unsigned i = 0; i < BYTES; ++i) {
                const auto c = static_cast<unsigned char>(at[i]);
                quotes |= std::uint64_t{c == '"'} << i;
                backslashes |= std::uint64_t{c == '\\'} << i;
                others |= std::uint64_t{c < 0x20 || c >= 0x80} << i;
            }
#endif
        }
    };

    // Reads and writes up to RUN_BYTES - 1 more than it copies: without a branch for most runs.
    static constexpr std::size_t RUN_BYTES = 16;
    static char* copy_run(char* to, const char* from, unsigned size_bytes) {
        for (std::size_t i = 0; i < size_bytes; i += RUN_BYTES) std::memcpy(to + i, from + i, RUN_BYTES);
        return to + size_bytes;
    }

    std::vector<Lane> lanes_;
    std::string payload_room_;
    std::string_view payload_;
};

}  // namespace lob

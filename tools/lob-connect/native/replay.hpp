// replay.hpp - the usual lines of a recording, straight from the text into the raw ring.
//
//   {"ts_ns":1723161253937085768,"conn":"ws","dir":"in","raw":"{\"stream\":..."}
//
// That is a frame of an open connection as lob-connect and its kin write it, all ASCII. Whatever differs by a byte (another
// key, another order, other characters, another direction, an unknown label) is left to the caller, who takes the line apart in
// full and knows what to say of a damaged one. So nothing is decided here, and a line taken here means what it would mean there.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

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
        if (payload_room_.size() < static_cast<std::size_t>(end - at)) payload_room_.resize(static_cast<std::size_t>(end - at));
        char* out = payload_room_.data();
        for (;;) {
            while (end - at >= 8) {  // eight plain characters at once
                std::uint64_t word = 0;
                std::memcpy(&word, at, 8);
                if (special(word)) break;
                std::memcpy(out, at, 8);
                at += 8;
                out += 8;
            }
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

    // Whether one of eight characters is a quote, a backslash, a control character or not ASCII.
    static bool special(std::uint64_t word) {
        constexpr std::uint64_t ones = 0x0101010101010101ull, tops = 0x8080808080808080ull;
        const auto zero_byte = [](std::uint64_t w) { return (w - ones) & ~w & tops; };
        return ((zero_byte(word ^ (ones * '"')) | zero_byte(word ^ (ones * '\\')) | ((word - ones * 0x20) & ~word) | word) & tops) != 0;
    }

    std::vector<Lane> lanes_;
    std::string payload_room_;
    std::string_view payload_;
};

}  // namespace lob

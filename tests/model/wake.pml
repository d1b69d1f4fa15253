/* wake.pml - the wake-up protocol of wait.hpp on a machine with store buffers (x86): no wake-up is lost.
 *
 * A publisher makes ITEMS items visible one by one (the tail); WAITERS processes look, and sleep by futex when there is none.
 * A store lies in the publisher's buffer until it is flushed, at any later moment, by a fence, a locked instruction or a system
 * call. Nobody is woken by time, so a lost wake-up is an invalid end state. Mistakes: -DNO_S2 no fence in the publisher,
 * -DSTORED_BIT the waiter's bit is a plain store without a fence, -DNO_RECHECK the waiter does not look again before it sleeps,
 * -DNO_COMPARE a futex that does not compare, -DONE_BIT the word is a bit and does not count.
 */
#define ITEMS 3
#define WAITERS 2

byte tail = 0;
byte word = 0;              /* odd: somebody may be asleep */
bool asleep[WAITERS];
chan publisher_buffer = [ITEMS] of { byte };  /* tails that nobody else sees yet */
bool bit_pending[WAITERS];  /* -DSTORED_BIT: a waiter's store that nobody else sees yet */

inline flush_publisher() {
    do :: publisher_buffer ? value -> tail = value :: empty(publisher_buffer) -> break od
}
inline flush_waiter() {
    if :: bit_pending[me] -> word = 1; bit_pending[me] = false :: else fi
}

/* The hardware: a buffer gives a store to memory whenever it likes. */
active proctype publisher_hardware() {
    byte value;
end:do
    :: atomic { publisher_buffer ? value -> tail = value }
    od
}
active [WAITERS] proctype waiter_hardware() {
    byte me = _pid - 1;
end:do
    :: atomic { bit_pending[me] -> word = 1; bit_pending[me] = false }
    od
}

active proctype publisher() {
    byte item = 1, seen, w, value;
    do
    :: item <= ITEMS ->
        publisher_buffer ! item;                    /* publish */
#ifndef NO_S2
        atomic { flush_publisher() };               /* S2 */
#endif
        seen = word;
        if
        :: seen % 2 == 1 ->
            atomic {                                /* CAS */
                flush_publisher();
                if
#if defined(ONE_BIT) || defined(STORED_BIT)
                :: word == seen -> word = 0; seen = 255
#else
                :: word == seen -> word = word + 1; seen = 255
#endif
                :: else
                fi
            };
            if
            :: seen == 255 ->
                atomic {                            /* futex_wake */
                    w = 0;
                    do :: w < WAITERS -> asleep[w] = false; w++ :: else -> break od
                }
            :: else
            fi
        :: else
        fi;
        item++
    :: else -> break
    od
}

active [WAITERS] proctype waiter() {
    byte me = _pid - WAITERS - 2;
    byte have = 0, seen, odd;
    do
    :: have == ITEMS -> break
    :: else ->
        seen = tail;
        if
        :: seen != have -> have = seen
        :: else ->
#ifdef STORED_BIT
            bit_pending[me] = true; odd = 1;
#else
            atomic { if :: word % 2 == 0 -> word = word + 1 :: else fi; odd = word };  /* |= 1, S1 */
#endif
#ifdef NO_RECHECK
            seen = have;
#else
            seen = tail;                            /* look again */
#endif
            if
            :: seen != have -> have = seen
            :: else ->
                atomic {                            /* futex_wait: a system call */
                    flush_waiter();
#ifdef NO_COMPARE
                    asleep[me] = true
#else
                    if :: word == odd -> asleep[me] = true :: else fi
#endif
                };
                !asleep[me]
            fi
        fi
    od
}

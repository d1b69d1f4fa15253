/* takeover.pml - a writer that dies between any two stores, and the next one that goes on (ring.hpp).
 *
 * Two would-be owners. Whoever has the lock recovers from the header, then commits records of 0 to 2 bytes; it may die before
 * each of its stores, and the kernel gives the lock back. What must hold: at each recovery next_seq and raw_seq are exactly those
 * of the last commit; never two owners; the intent never falls; a reader sees the numbers without a hole.
 * Mistakes: -DONE_CHECKPOINT, -DTURN_FIRST (turn stored before what it vouches for), -DTAIL_FIRST (tail before the checkpoint),
 * -DANY_TAIL (the highest turn wins, whatever its tail), -DNO_LOCK, -DLOWER_INTENT (a new owner begins at the tail).
 */
#define COMMITS 4
#define DEATHS 3

byte tail = 0, intent = 0;
byte place_tail[2], place_seq[2], place_raw[2], place_turn[2];

/* What is true, whoever lives: known to the model only. */
byte true_seq = 1, true_raw = 0, scribbled = 0;
byte owners = 0, commits = 0, deaths = 0;
bool locked = false;

/* A death gives the lock back and the process starts again. */
#define MAY_DIE if :: deaths < DEATHS -> atomic { deaths++; owners--; locked = false }; goto reborn :: true fi

proctype writer() {
    byte seq, raw, turn, at, bytes, k, i;
reborn:
#ifdef NO_LOCK
    if
    :: atomic { commits < COMMITS -> owners++ }
    :: commits >= COMMITS -> goto done
    fi;
#else
    if
    :: atomic { !locked && commits < COMMITS -> locked = true; owners++ }
    :: commits >= COMMITS -> goto done
    fi;
#endif
    assert(owners == 1);
    at = tail; turn = 0; seq = 0; raw = 0;
    i = 0;
    do
    :: i < 2 ->
#ifdef ANY_TAIL
        if :: place_turn[i] > turn -> turn = place_turn[i]; seq = place_seq[i]; raw = place_raw[i] :: else fi;
#else
        if :: place_turn[i] > turn && place_tail[i] == at -> turn = place_turn[i]; seq = place_seq[i]; raw = place_raw[i] :: else fi;
#endif
        i++
    :: else -> break
    od;
    assert(seq == true_seq);
    assert(raw == true_raw);
#ifdef LOWER_INTENT
    intent = at;
#endif
    assert(intent >= scribbled);
    do
    :: commits < COMMITS ->
        if :: bytes = 0 :: bytes = 1 :: bytes = 2 fi;
        MAY_DIE;
        if :: at + bytes > intent -> intent = at + bytes :: else fi;
        if :: at + bytes > scribbled -> scribbled = at + bytes :: else fi;   /* from here on its bytes may be touched */
        MAY_DIE;
        turn++;
#ifdef ONE_CHECKPOINT
        k = 0;
#else
        k = turn % 2;
#endif
#ifdef TAIL_FIRST
        if :: bytes > 0 -> atomic { tail = at + bytes; true_seq = seq + 1; true_raw = raw + 1; commits++ } :: else fi;
        MAY_DIE;
#endif
#ifdef TURN_FIRST
        place_turn[k] = turn;
#else
        place_turn[k] = 0;
#endif
        MAY_DIE;
        place_tail[k] = at + bytes;
        MAY_DIE;
        place_seq[k] = seq + (bytes > 0 -> 1 : 0);
        MAY_DIE;
        place_raw[k] = raw + 1;
        MAY_DIE;
        /* Without a byte the turn is what commits; else the tail. */
        atomic {
            place_turn[k] = turn;
            if :: bytes == 0 -> true_raw = raw + 1; commits++ :: else fi
        };
        MAY_DIE;
#ifndef TAIL_FIRST
        if :: bytes > 0 -> atomic { tail = at + bytes; true_seq = seq + 1; true_raw = raw + 1; commits++ } :: else fi;
#endif
        seq = seq + (bytes > 0 -> 1 : 0);
        raw++;
        at = at + bytes;
        MAY_DIE
    :: else -> break
    od;
    atomic { owners--; locked = false };
done:
    skip
}

init {
    atomic { place_turn[0] = 2; place_seq[0] = 1; run writer(); run writer() }  /* as the segment is laid out */
}

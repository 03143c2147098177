"""The parallel runtime as LLVM IR text: threads that run the outlined bodies of parallel loops, and wait for no absent ones.

A compiled parallel loop calls

    void ansor_parallel(body, void* context, i64 iterations, i32 threads)
    void body(void* context, i64 low, i64 high, i64 participant)

which divides the iterations into chunks, several for each thread, and returns when all chunks are done, **not** when all
threads have reported: the caller takes chunks itself, and a worker that the system wakes late (because another process has
its core) finds nothing left to do. A neighbour costs the share of the machine that it takes, and no more.

* Every participant begins with its own share of the chunks, the same in every region, so that what a core wrote in one
  region is in its cache in the next one. Then it helps the others with theirs.
* A share is one word (generation of the region, end, next chunk); a chunk is taken by compare-and-swap, so that a worker which
  read an earlier region's words takes nothing.
* A worker that has nothing to do spins for `WORKER_SPIN_SECONDS`, soon offering its core to whoever wants it (it may be the
  caller), and then sleeps on a futex. A caller that waits for chunks that others have begun spins for `CALLER_SPIN_SECONDS`
  and then leaves its core to them.
* Several threads may call at once (`REGIONS` of them; more run alone). A child made by `fork` begins with an empty pool.
* Workers block all signals: those are for Python's main thread.

`ansor_py.codegen.thread_pool` compiles the text once per process.
"""

from __future__ import annotations

from string import Template

from ansor_py.codegen.parallel_workers import WORKERS
from ansor_py.target import Target, architecture_of

PARALLEL = "ansor_parallel"
STOP, FORGET = "ansor_pool_stop", "ansor_pool_forget"

CHUNKS_PER_THREAD = 4
MOST_THREADS = 256
REGIONS = 8
# A model's regions follow each other within microseconds, runs of it within tens of them.
WORKER_SPIN_SECONDS = 300e-6
# Beside a busy process a region of 174 us on one thread took 230 us in the mean without yielding, 175-180 with it.
WORKER_YIELD_SECONDS = 5e-6
# Its core is not its own if it comes back later than this. Then it sleeps at once: a thread that is woken gets an idle core,
# where one that spins stays, even on the core of its caller.
WORKER_AWAY_SECONDS = 10e-6
CALLER_SPIN_SECONDS = 50e-6
WORKER_NAME = "ansor-worker"  # as `ps -L` and /proc show the threads; at most 15 bytes

_TYPES = """
; Padded to cache lines of 64 bytes: what different threads write lies in different ones.
;                 asleep, index, pthread_t
%worker = type { i32, i32, i64, [48 x i8] }
;                generation << 32 | end << 16 | next chunk
%claim = type { i64, [56 x i8] }
;                0 generation (0: closed), 1 body, 2 context, 3 iterations, 4 chunks, 5 threads, 6 first worker, 7 workers
;                8 chunks done, 9 whether the caller sleeps, 10 last generation, 11 whether a caller has it, then the shares
%region = type { i64, ptr, ptr, i64, i64, i64, i64, i64,
                 i32, i32, i32, i32, [48 x i8], [$MOST_THREADS x %claim] }

@epoch = internal global i32 0, align 64          ; counts regions: a change is news for the workers
@used = internal global i32 0, align 4            ; regions that were ever open at once
@stopped = internal global i32 0, align 4
@hiring = internal global i32 0, align 64         ; a lock
@closed = internal global i32 0, align 4          ; no more workers are started
@hired = internal global i64 0, align 64
@workers = internal global [$MOST_THREADS x %worker] zeroinitializer, align 64
@regions = internal global [$REGIONS x %region] zeroinitializer, align 64
@name = internal constant [16 x i8] c"$NAME", align 1
@all_signals = internal constant [16 x i64] [$ALL_SIGNALS], align 16

declare i64 @syscall(i64, ...)
declare i32 @prctl(i32, ...)
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
$REST_DECLARATION
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""

_CHUNKS = """
; Runs chunks of a region as one participant until none is left, and says how many. A caller's region stays open while one of
; its chunks is taken and not done, so that what was read before a chunk was taken is that region's.
define internal i64 @take_chunks(ptr %region, i32 %generation, i64 %participant) {
entry:
  %body.at = getelementptr %region, ptr %region, i64 0, i32 1
  %body = load atomic ptr, ptr %body.at monotonic, align 8
  %context.at = getelementptr %region, ptr %region, i64 0, i32 2
  %context = load atomic ptr, ptr %context.at monotonic, align 8
  %iterations.at = getelementptr %region, ptr %region, i64 0, i32 3
  %iterations = load atomic i64, ptr %iterations.at monotonic, align 8
  %chunks.at = getelementptr %region, ptr %region, i64 0, i32 4
  %chunks = load atomic i64, ptr %chunks.at monotonic, align 8
  %threads.at = getelementptr %region, ptr %region, i64 0, i32 5
  %threads = load atomic i64, ptr %threads.at monotonic, align 8
  %size = udiv i64 %iterations, %chunks
  %larger = urem i64 %iterations, %chunks                           ; so many chunks have one iteration more
  br label %share
share:
  %offset = phi i64 [ 0, %entry ], [ %offset.next, %exhausted ]
  %ran.before = phi i64 [ 0, %entry ], [ %ran, %exhausted ]
  %turn = add i64 %participant, %offset
  %owner = urem i64 %turn, %threads
  %claim = getelementptr %region, ptr %region, i64 0, i32 13, i64 %owner
  br label %look
look:
  %ran = phi i64 [ %ran.before, %share ], [ %ran, %take ], [ %ran.more, %run ]
  %seen = load atomic i64, ptr %claim acquire, align 8
  %seen.high = lshr i64 %seen, 32
  %seen.generation = trunc i64 %seen.high to i32
  %stale = icmp ne i32 %seen.generation, %generation
  br i1 %stale, label %left, label %current
current:
  %chunk = and i64 %seen, 65535
  %seen.end = lshr i64 %seen, 16
  %end = and i64 %seen.end, 65535
  %some = icmp ult i64 %chunk, %end
  br i1 %some, label %take, label %exhausted
take:
  %following = add i64 %seen, 1
  %pair = cmpxchg ptr %claim, i64 %seen, i64 %following acq_rel monotonic, align 8
  %mine = extractvalue { i64, i1 } %pair, 1
  br i1 %mine, label %run, label %look
run:
  %chunk.next = add i64 %chunk, 1
  %low.size = mul i64 %chunk, %size
  %low.more = call i64 @llvm.umin.i64(i64 %chunk, i64 %larger)
  %low = add i64 %low.size, %low.more
  %high.size = mul i64 %chunk.next, %size
  %high.more = call i64 @llvm.umin.i64(i64 %chunk.next, i64 %larger)
  %high = add i64 %high.size, %high.more
  call void %body(ptr %context, i64 %low, i64 %high, i64 %participant)
  %ran.more = add i64 %ran, 1
  br label %look
exhausted:
  %offset.next = add i64 %offset, 1
  %again = icmp ult i64 %offset.next, %threads
  br i1 %again, label %share, label %left
left:
  ret i64 %ran
}
"""

_CALLER = """
define void @ansor_parallel(ptr %body, ptr %context, i64 %iterations, i32 %threads.wanted) {
entry:
  %threads.wide = zext i32 %threads.wanted to i64
  %threads.some = call i64 @llvm.umin.i64(i64 %threads.wide, i64 %iterations)
  %threads.most = call i64 @llvm.umin.i64(i64 %threads.some, i64 $MOST_THREADS)
  %several = icmp ugt i64 %threads.most, 1
  br i1 %several, label %find, label %alone
find:                                                               ; a region that no other caller has
  %number = phi i64 [ 0, %entry ], [ %number.next, %taken ]
  %region = getelementptr [$REGIONS x %region], ptr @regions, i64 0, i64 %number
  %owned.at = getelementptr %region, ptr %region, i64 0, i32 11
  %pair = cmpxchg ptr %owned.at, i32 0, i32 1 acquire monotonic, align 4
  %mine = extractvalue { i32, i1 } %pair, 1
  br i1 %mine, label %staff, label %taken
taken:
  %number.next = add i64 %number, 1
  %another = icmp ult i64 %number.next, $REGIONS
  br i1 %another, label %find, label %alone
alone:
  call void %body(ptr %context, i64 0, i64 %iterations, i64 0)
  ret void

staff:                                                              ; workers for the callers before as well, as cores allow
  %number.count = add i64 %number, 1
  %number.short = trunc i64 %number.count to i32
  %used.before = atomicrmw umax ptr @used, i32 %number.short seq_cst, align 4
  %helpers = sub i64 %threads.most, 1
  %helpers.all = mul i64 %helpers, %number.count
  %helpers.cores = call i64 @llvm.umin.i64(i64 %helpers.all, i64 $OTHER_CORES)
  %helpers.wanted = call i64 @llvm.umax.i64(i64 %helpers, i64 %helpers.cores)
  %hired.before = load atomic i64, ptr @hired acquire, align 8
  %few = icmp ult i64 %hired.before, %helpers.wanted
  br i1 %few, label %more_staff, label %staffed
more_staff:
  call void @hire(i64 %helpers.wanted)
  br label %staffed
staffed:
  %workers = load atomic i64, ptr @hired acquire, align 8
  %nobody = icmp eq i64 %workers, 0
  br i1 %nobody, label %give_up, label %open
give_up:
  store atomic i32 0, ptr %owned.at release, align 4
  br label %alone

open:
  %participants = add i64 %workers, 1
  %threads = call i64 @llvm.umin.i64(i64 %threads.most, i64 %participants)
  %others = sub i64 %threads, 1
  %first.far = mul i64 %number, %others
  %first = urem i64 %first.far, %workers
  %chunks.most = mul i64 %threads, $CHUNKS_PER_THREAD
  %chunks = call i64 @llvm.umin.i64(i64 %iterations, i64 %chunks.most)
  %last.at = getelementptr %region, ptr %region, i64 0, i32 10
  %last = load i32, ptr %last.at
  %last.odd = or i32 %last, 1
  %generation = add i32 %last.odd, 2                                ; odd, and so never 0
  store i32 %generation, ptr %last.at
  %generation.wide = zext i32 %generation to i64
  %tag = shl i64 %generation.wide, 32
  %body.at = getelementptr %region, ptr %region, i64 0, i32 1
  store atomic ptr %body, ptr %body.at monotonic, align 8
  %context.at = getelementptr %region, ptr %region, i64 0, i32 2
  store atomic ptr %context, ptr %context.at monotonic, align 8
  %iterations.at = getelementptr %region, ptr %region, i64 0, i32 3
  store atomic i64 %iterations, ptr %iterations.at monotonic, align 8
  %chunks.at = getelementptr %region, ptr %region, i64 0, i32 4
  store atomic i64 %chunks, ptr %chunks.at monotonic, align 8
  %threads.at = getelementptr %region, ptr %region, i64 0, i32 5
  store atomic i64 %threads, ptr %threads.at monotonic, align 8
  %first.at = getelementptr %region, ptr %region, i64 0, i32 6
  store atomic i64 %first, ptr %first.at monotonic, align 8
  %workers.at = getelementptr %region, ptr %region, i64 0, i32 7
  store atomic i64 %workers, ptr %workers.at monotonic, align 8
  %done.at = getelementptr %region, ptr %region, i64 0, i32 8
  store atomic i32 0, ptr %done.at monotonic, align 4
  %sleeps.at = getelementptr %region, ptr %region, i64 0, i32 9
  store atomic i32 0, ptr %sleeps.at monotonic, align 4
  br label %share
share:
  %owner = phi i64 [ 0, %open ], [ %owner.next, %share ]
  %begin = phi i64 [ 0, %open ], [ %end, %share ]
  %owner.next = add i64 %owner, 1
  %end.far = mul i64 %owner.next, %chunks
  %end = udiv i64 %end.far, %threads
  %end.high = shl i64 %end, 16
  %range = or i64 %end.high, %begin
  %word = or i64 %tag, %range
  %claim = getelementptr %region, ptr %region, i64 0, i32 13, i64 %owner
  store atomic i64 %word, ptr %claim release, align 8
  %more_shares = icmp ult i64 %owner.next, %threads
  br i1 %more_shares, label %share, label %publish
publish:
  store atomic i64 %generation.wide, ptr %region release, align 8
  %epoch.before = atomicrmw add ptr @epoch, i32 1 seq_cst, align 4
  br label %call
call:                                                               ; the workers that it wants, where they sleep
  %called = phi i64 [ 0, %publish ], [ %called.next, %called_one ]
  %index.far = add i64 %first, %called
  %index = urem i64 %index.far, %workers
  %worker = getelementptr [$MOST_THREADS x %worker], ptr @workers, i64 0, i64 %index
  %asleep = load atomic i32, ptr %worker seq_cst, align 4
  %sleeping = icmp ne i32 %asleep, 0
  br i1 %sleeping, label %rouse, label %called_one
rouse:
  store atomic i32 0, ptr %worker seq_cst, align 4
  call void @wake(ptr %worker)
  br label %called_one
called_one:
  %called.next = add i64 %called, 1
  %call_more = icmp ult i64 %called.next, %others
  br i1 %call_more, label %call, label %take_part

take_part:
  %ran.wide = call i64 @take_chunks(ptr %region, i32 %generation, i64 0)
  %ran = trunc i64 %ran.wide to i32
  %before = atomicrmw add ptr %done.at, i32 %ran seq_cst, align 4
  %so_far = add i32 %before, %ran
  %all = trunc i64 %chunks to i32
  %complete = icmp eq i32 %so_far, %all
  br i1 %complete, label %close, label %wait
wait:                                                               ; chunks that others have begun
  %since = call i64 @nanoseconds()
  br label %poll
poll:
  %polls = phi i32 [ 0, %wait ], [ %polls.next, %pause ], [ 0, %clock ]
  %done = load atomic i32, ptr %done.at acquire, align 4
  %finished = icmp eq i32 %done, %all
  br i1 %finished, label %close, label %pause
pause:
  call void @rest()
  %polls.next = add i32 %polls, 1
  %look = icmp ult i32 %polls.next, 32
  br i1 %look, label %poll, label %clock
clock:
  %now = call i64 @nanoseconds()
  %spun = sub i64 %now, %since
  %long = icmp ugt i64 %spun, $CALLER_SPIN
  br i1 %long, label %doze, label %poll
doze:
  store atomic i32 1, ptr %sleeps.at seq_cst, align 4
  br label %check
check:
  %reported = load atomic i32, ptr %done.at seq_cst, align 4
  %reported_all = icmp eq i32 %reported, %all
  br i1 %reported_all, label %close, label %sleep
sleep:
  call void @sleep_while(ptr %done.at, i32 %reported)
  br label %check
close:
  store atomic i64 0, ptr %region release, align 8
  store atomic i32 0, ptr %owned.at release, align 4
  ret void
}
"""


def runtime_ir(target: Target, cores: int) -> str:
    """The runtime as LLVM IR text for a machine of so many cores."""
    architecture = architecture_of(target.triple)
    hint, argument = architecture.spin_hint or ("llvm.donothing", "")
    text = Template(_TYPES + WORKERS + _CHUNKS + _CALLER)
    return text.substitute(
        REST=f"call void @{hint}({argument})",
        REST_DECLARATION=f"declare void @{hint}({argument.partition(' ')[0]})",
        FUTEX=architecture.futex_call,
        NAME=WORKER_NAME.ljust(16, "\0").replace("\0", "\\00"),
        ALL_SIGNALS=", ".join(["i64 -1"] * 16),
        MOST_THREADS=MOST_THREADS,
        OTHER_CORES=max(cores - 1, 0),
        REGIONS=REGIONS,
        CHUNKS_PER_THREAD=CHUNKS_PER_THREAD,
        WORKER_YIELD=round(1e9 * WORKER_YIELD_SECONDS),
        WORKER_AWAY=round(1e9 * WORKER_AWAY_SECONDS),
        WORKER_SPIN=round(1e9 * WORKER_SPIN_SECONDS),
        CALLER_SPIN=round(1e9 * CALLER_SPIN_SECONDS),
    )

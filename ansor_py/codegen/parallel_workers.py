"""The workers of the parallel runtime, as LLVM IR text: how they start, find regions to help with, sleep and end.

A part of the module that `ansor_py.codegen.parallel_runtime` puts together, whose types and variables it uses.
"""

from __future__ import annotations

_SYSTEM = """
define internal i64 @nanoseconds() {
  %time = alloca [2 x i64], align 16
  %status = call i32 @clock_gettime(i32 1, ptr %time)
  %whole = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %scaled = mul i64 %whole, 1000000000
  %sum = add i64 %scaled, %rest
  ret i64 %sum
}

define internal void @rest() alwaysinline {
  $REST
  ret void
}

define internal void @sleep_while(ptr %word, i32 %value) {          ; FUTEX_WAIT | FUTEX_PRIVATE_FLAG
  %status = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %word, i32 128, i32 %value, ptr null)
  ret void
}

define internal void @wake(ptr %word) {                             ; FUTEX_WAKE | FUTEX_PRIVATE_FLAG
  %status = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %word, i32 129, i32 1)
  ret void
}
"""

_WORKER = """
; What a worker does for one region: its part, if the region is open and wants this worker.
define internal void @help(ptr %region, i64 %index) {
entry:
  %generation.wide = load atomic i64, ptr %region acquire, align 8
  %generation = trunc i64 %generation.wide to i32
  %open = icmp ne i32 %generation, 0
  br i1 %open, label %is_open, label %left
is_open:
  %chunks.at = getelementptr %region, ptr %region, i64 0, i32 4
  %chunks = load atomic i64, ptr %chunks.at monotonic, align 8
  %threads.at = getelementptr %region, ptr %region, i64 0, i32 5
  %threads = load atomic i64, ptr %threads.at monotonic, align 8
  %first.at = getelementptr %region, ptr %region, i64 0, i32 6
  %first = load atomic i64, ptr %first.at monotonic, align 8
  %workers.at = getelementptr %region, ptr %region, i64 0, i32 7
  %workers = load atomic i64, ptr %workers.at monotonic, align 8
  %known = icmp ult i64 %index, %workers                            ; it may be newer than the region
  br i1 %known, label %is_known, label %left
is_known:
  %ahead = add i64 %index, %workers
  %distance.long = sub i64 %ahead, %first
  %distance = urem i64 %distance.long, %workers
  %participant = add i64 %distance, 1
  %wanted = icmp ult i64 %participant, %threads
  br i1 %wanted, label %is_wanted, label %left
is_wanted:
  %ran.wide = call i64 @take_chunks(ptr %region, i32 %generation, i64 %participant)
  %ran = trunc i64 %ran.wide to i32
  %any = icmp ne i32 %ran, 0
  br i1 %any, label %report, label %left
report:
  %done.at = getelementptr %region, ptr %region, i64 0, i32 8
  %before = atomicrmw add ptr %done.at, i32 %ran seq_cst, align 4
  %done = add i32 %before, %ran
  %all = trunc i64 %chunks to i32
  %last = icmp eq i32 %done, %all
  br i1 %last, label %finished, label %left
finished:
  %sleeps.at = getelementptr %region, ptr %region, i64 0, i32 9
  %sleeps = load atomic i32, ptr %sleeps.at seq_cst, align 4
  %sleeping = icmp ne i32 %sleeps, 0
  br i1 %sleeping, label %rouse, label %left
rouse:
  call void @wake(ptr %done.at)
  br label %left
left:
  ret void
}

define internal ptr @work(ptr %worker) {
entry:
  %named = call i32 (i32, ...) @prctl(i32 15, ptr @name)            ; PR_SET_NAME
  %index.at = getelementptr %worker, ptr %worker, i64 0, i32 1
  %index.short = load i32, ptr %index.at
  %index = zext i32 %index.short to i64
  br label %news
news:
  %seen = load atomic i32, ptr @epoch seq_cst, align 4
  %stopped = load atomic i32, ptr @stopped acquire, align 4
  %stop = icmp ne i32 %stopped, 0
  br i1 %stop, label %leave, label %rounds
rounds:
  %used = load atomic i32, ptr @used acquire, align 4
  br label %round
round:
  %number = phi i32 [ 0, %rounds ], [ %number.next, %visit ]
  %more = icmp ult i32 %number, %used
  br i1 %more, label %visit, label %idle
visit:
  %region = getelementptr [$REGIONS x %region], ptr @regions, i64 0, i32 %number
  call void @help(ptr %region, i64 %index)
  %number.next = add i32 %number, 1
  br label %round
idle:
  %begin = call i64 @nanoseconds()
  br label %poll
poll:
  %polls = phi i32 [ 0, %idle ], [ %polls.next, %pause ], [ 0, %clock ], [ 0, %yield ]
  %epoch = load atomic i32, ptr @epoch acquire, align 4
  %new = icmp ne i32 %epoch, %seen
  br i1 %new, label %news, label %pause
pause:
  call void @rest()
  %polls.next = add i32 %polls, 1
  %look = icmp ult i32 %polls.next, 32
  br i1 %look, label %poll, label %clock
clock:
  %now = call i64 @nanoseconds()
  %spun = sub i64 %now, %begin
  %polite = icmp ugt i64 %spun, $WORKER_YIELD
  br i1 %polite, label %yield, label %poll
yield:                                                              ; it takes long if another thread has run meanwhile
  %yielded = call i32 @sched_yield()
  %back = call i64 @nanoseconds()
  %away = sub i64 %back, %now
  %shared = icmp ugt i64 %away, $WORKER_AWAY
  %long = icmp ugt i64 %spun, $WORKER_SPIN
  %enough = or i1 %shared, %long
  br i1 %enough, label %doze, label %poll
doze:
  %before = atomicrmw xchg ptr %worker, i32 1 seq_cst, align 4
  %again = load atomic i32, ptr @epoch seq_cst, align 4
  %missed = icmp ne i32 %again, %seen
  br i1 %missed, label %awake, label %sleep
sleep:
  call void @sleep_while(ptr %worker, i32 1)
  br label %awake
awake:
  store atomic i32 0, ptr %worker seq_cst, align 4
  br label %news
leave:
  ret ptr null
}
"""

_HIRING = """
define internal void @lock_hiring() {
entry:
  br label %try
try:
  %pair = cmpxchg ptr @hiring, i32 0, i32 1 acquire monotonic, align 4
  %mine = extractvalue { i32, i1 } %pair, 1
  br i1 %mine, label %locked, label %wait
wait:
  call void @rest()
  br label %try
locked:
  ret void
}

; Start workers until there are %wanted, or the system gives no more. They block every signal.
define internal void @hire(i64 %wanted) noinline {
entry:
  %mask = alloca [16 x i64], align 16
  call void @lock_hiring()
  %blocked = call i32 @pthread_sigmask(i32 2, ptr @all_signals, ptr %mask)      ; SIG_SETMASK
  br label %look
look:
  %index = load atomic i64, ptr @hired monotonic, align 8
  %short = icmp ult i64 %index, %wanted
  %closed = load atomic i32, ptr @closed monotonic, align 4
  %open = icmp eq i32 %closed, 0
  %start = and i1 %short, %open
  br i1 %start, label %create, label %enough
create:
  %worker = getelementptr [$MOST_THREADS x %worker], ptr @workers, i64 0, i64 %index
  %index.at = getelementptr %worker, ptr %worker, i64 0, i32 1
  %index.short = trunc i64 %index to i32
  store i32 %index.short, ptr %index.at
  %thread.at = getelementptr %worker, ptr %worker, i64 0, i32 2
  %status = call i32 @pthread_create(ptr %thread.at, ptr null, ptr @work, ptr %worker)
  %created = icmp eq i32 %status, 0
  br i1 %created, label %count, label %refused
count:
  %more = add i64 %index, 1
  store atomic i64 %more, ptr @hired release, align 8
  br label %look
refused:
  store atomic i32 1, ptr @closed monotonic, align 4
  br label %enough
enough:
  %restored = call i32 @pthread_sigmask(i32 2, ptr %mask, ptr null)
  store atomic i32 0, ptr @hiring release, align 4
  ret void
}

; End the workers and wait for them; later regions run on their caller alone.
define void @ansor_pool_stop() {
entry:
  call void @lock_hiring()
  store atomic i32 1, ptr @closed monotonic, align 4
  store atomic i32 0, ptr @hiring release, align 4
  store atomic i32 1, ptr @stopped seq_cst, align 4
  %news = atomicrmw add ptr @epoch, i32 1 seq_cst, align 4
  %count = atomicrmw xchg ptr @hired, i64 0 seq_cst, align 8
  br label %next
next:
  %index = phi i64 [ 0, %entry ], [ %index.next, %end ]
  %more = icmp ult i64 %index, %count
  br i1 %more, label %end, label %ended
end:
  %worker = getelementptr [$MOST_THREADS x %worker], ptr @workers, i64 0, i64 %index
  store atomic i32 0, ptr %worker seq_cst, align 4
  call void @wake(ptr %worker)
  %thread.at = getelementptr %worker, ptr %worker, i64 0, i32 2
  %thread = load i64, ptr %thread.at
  %status = call i32 @pthread_join(i64 %thread, ptr null)
  %index.next = add i64 %index, 1
  br label %next
ended:
  ret void
}

; In a child made by fork, which has a copy of the books and none of the threads.
define void @ansor_pool_forget() {
  store i32 0, ptr @epoch
  store i32 0, ptr @used
  store i32 0, ptr @stopped
  store i32 0, ptr @hiring
  store i32 0, ptr @closed
  store i64 0, ptr @hired
  %workers.end = getelementptr %worker, ptr null, i64 $MOST_THREADS
  %workers.bytes = ptrtoint ptr %workers.end to i64
  call void @llvm.memset.p0.i64(ptr @workers, i8 0, i64 %workers.bytes, i1 false)
  %regions.end = getelementptr %region, ptr null, i64 $REGIONS
  %regions.bytes = ptrtoint ptr %regions.end to i64
  call void @llvm.memset.p0.i64(ptr @regions, i8 0, i64 %regions.bytes, i1 false)
  ret void
}
"""

WORKERS = _SYSTEM + _WORKER + _HIRING

-module(py_stream).

-include("py_doc.hrl").
-include("py_request.hrl").
?MODULEDOC("Streams: the items of a Python iterator as messages.\n\n"
           "A stream is a process of its own that asks the Python object for one step after the other, each an\n"
           "ordinary request, and passes the items on while the owner reads. It ends with the iterator, with its\n"
           "owner, with its context, or by `cancel/1`; a generator is closed then. Nobody waits for it, and\n"
           "between steps it holds nothing in Python but the object.").

%% API
-export([collect/1, start/2, ack/2, cancel/1, options/1]).

-export_type([options/0]).

-type options() :: #{owner => pid(), batch => pos_integer(), credit => auto | non_neg_integer(),
                     timeout => timeout(), kwargs => py:kwargs(), traceback => boolean(),
                     return => value | handle, on_unknown => handle | repr | error,
                     binary => auto | bytes | str}.

-record(options, {
    owner :: pid(),
    shape = data :: data | batch,
    batch :: pos_integer(),
    credit :: auto | non_neg_integer(),
    timeout :: timeout()
}).

-record(stream, {
    ref :: reference(),            % what the owner knows: an alias of this process
    tag :: reference(),            % in the replies
    options :: #options{},
    flags :: non_neg_integer(),
    place :: py_request:place(),
    object = none :: none | reference(),
    token = none :: none | py_nif:token(),
    credit :: auto | non_neg_integer(),
    unread = 0 :: non_neg_integer(), % at most so many of its items are in the owner's mailbox
    others = 0 :: non_neg_integer(), % messages there that are not ours
    largest = 1 :: pos_integer()     % items in one message
}).

-define(BATCH, 64).
-define(COLLECT, 1000).      % items in a step when nobody waits for single ones
-define(UNREAD, 1000).
-define(LOOK_FIRST, 1).      % ms between looks at the mailbox of an owner that does not read
-define(LOOK_LAST, 50).
-define(COUNT_AFTER, 2000).  % ms after which its messages are counted
-define(PATIENCE, 5000).     % ms for a generator to end when it is told to
-define(GENTLE, 20).         % ms of them before it is interrupted

%% ------------------------------------------------------------------------------------------
%% API
%% ------------------------------------------------------------------------------------------

?DOC("All items of what a request gives, in the calling process; the request's time-out is per item.").
-spec collect(py_request:request()) -> {ok, [term()]} | {error, term()}.
collect(#request{timeout = Timeout, flags = Flags} = Request) ->
    Opened = py_request:implicit(opening(Request)),
    case object_of(Opened, py_async:destination(Request)) of
        {ok, Place, Object} ->
            case py_request:in_context(Place, wrapping(Object, Timeout)) of
                {ok, Stream} -> collect(Place, stepping(Stream, ?COLLECT, false, Flags, Timeout), []);
                Error -> Error
            end;
        Error ->
            Error
    end.

collect(Place, Step, Done) ->
    case py_request:in_context(Place, Step) of
        {ok, {Items, more}} -> collect(Place, Step, [Items | Done]);
        {ok, {Items, done}} -> {ok, lists:append(lists:reverse(Done, [Items]))};
        {ok, {_, Error}} -> Error;
        Error -> Error
    end.

?DOC("Starts a stream; its messages go to the owner.").
-spec start(py_request:request(), #options{}) -> {ok, reference()} | {error, term()}.
start(Request, Options) ->
    case py_async:destination(Request) of
        {ok, Place} -> start(Place, Request, Options);
        Error -> Error
    end.

start(Place, Request, Options) ->
    Bequest = py_request:bequest(Place, Request),
    Starter = self(),
    Started = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        Ref = alias(),
        Starter ! {Started, Ref},
        init(Ref, Place, Bequest, Request, Options)
    end),
    receive
        {Started, Ref} ->
            demonitor(Monitor, [flush]),
            {ok, Ref};
        {'DOWN', Monitor, process, Pid, Reason} ->
            {error, Reason}
    end.

?DOC("The owner can take N more items.").
-spec ack(reference(), non_neg_integer()) -> ok.
ack(Ref, N) ->
    Ref ! {ack, N},
    ok.

-spec cancel(reference()) -> ok.
cancel(Ref) ->
    Ref ! cancel,
    ok.

?DOC("Takes a stream's own options apart from those of its request.").
-spec options(map()) -> {#options{}, map()}.
options(Options) ->
    _ = [check(Key, Value) || {Key, Value} <- maps:to_list(Options),
                              lists:member(Key, [owner, batch, credit, timeout])],
    {#options{owner = maps:get(owner, Options, self()),
              shape = case Options of #{batch := _} -> batch; #{} -> data end,
              batch = maps:get(batch, Options, ?BATCH),
              credit = maps:get(credit, Options, auto),
              timeout = maps:get(timeout, Options, infinity)},
     maps:without([owner, batch, credit, timeout], Options)}.

check(owner, Owner) when is_pid(Owner) -> ok;
check(batch, Batch) when is_integer(Batch), Batch > 0 -> ok;
check(credit, Credit) when Credit =:= auto; is_integer(Credit), Credit >= 0 -> ok;
check(timeout, T) when ?IS_TIMEOUT(T) -> ok;
check(Key, Value) ->
    py_options:misuse(io_lib:format("there is no option ~p => ~tp: owner is a pid, batch a positive integer, "
                                    "credit auto or the number of items, timeout milliseconds or infinity",
                                    [Key, Value])).

%% ------------------------------------------------------------------------------------------
%% Requests
%% ------------------------------------------------------------------------------------------

%% What the user named, as a handle, whatever it is.
opening(Request) ->
    py_request:with_flags(Request, ?FLAG_AS_HANDLE bor ?FLAG_ASYNC).

%% The object and where it is to be used: where it was opened, unless it lives elsewhere. All contexts on
%% the main interpreter have what lives there, but the owner's namespace belongs to one.
object_of({ok, Object}, Opened) ->
    case py_nif:handle_place(Object) =:= main andalso is_main(Opened) of
        true ->
            {ok, Place} = Opened,
            {ok, Place, Object};
        false ->
            case py_context:handle_place(Object) of
                {ok, Place} -> {ok, Place, Object};
                error -> {error, {context_down, gone}}
            end
    end;
object_of(Error, _Opened) ->
    Error.

is_main({ok, {Ctx, _}}) -> py_context:get_interp_id(Ctx) =:= {ok, 0};
is_main({error, _}) -> false.

wrapping(Object, Timeout) ->
    #request{op = ?OP_CALL, target = <<"erlang._stream">>, function = 'Stream', args = [Object],
             timeout = Timeout, flags = ?FLAG_AS_HANDLE}.

%% The flags are about the items: `return => handle` too.
stepping(Object, Limit, SendsParts, Flags, Timeout) ->
    #request{op = ?OP_CALL, target = Object, function = step, args = [Limit, SendsParts],
             timeout = Timeout, flags = Flags bor ?FLAG_ASYNC}.

closing(Object) ->
    #request{op = ?OP_CALL, target = Object, function = close, timeout = ?PATIENCE,
             flags = ?FLAG_ASYNC}.

%% ------------------------------------------------------------------------------------------
%% The process
%% ------------------------------------------------------------------------------------------

init(Ref, {Ctx, _} = Place, Bequest, Request, #options{owner = Owner, credit = Credit} = Options) ->
    py_request:inherit(Bequest, Owner),
    _ = monitor(process, Owner),
    _ = monitor(process, Ctx),
    Stream = #stream{ref = Ref, tag = make_ref(), options = Options, place = Place, credit = Credit,
                     flags = Request#request.flags, others = queue_len(Owner)},
    Open = py_request:with_timeout(opening(py_request:implicitly(Request)), infinity),
    {Opened, Stream1} = one(Open, Stream),
    case object_of(Opened, {ok, Place}) of
        {ok, Home, Object} -> wrap(Object, Stream1#stream{place = Home});
        Ended -> ended(Ended, Stream1)
    end.

wrap(Object, Stream) ->
    case one(wrapping(Object, infinity), Stream) of
        {{ok, Wrapped}, Stream1} -> run(Stream1#stream{object = Wrapped});
        {Ended, Stream1} -> ended(Ended, Stream1)
    end.

%% A request and its result, unless something ends the stream meanwhile.
one(Request, Stream) ->
    reply(submit(Request, Stream)).

submit(Request, #stream{place = Place, tag = Tag} = Stream) ->
    case py_request:start_as(Place, Tag, Request) of
        Token when is_integer(Token) -> Stream#stream{token = Token};
        Error -> self() ! {Tag, Error}, Stream
    end.

reply(#stream{options = #options{timeout = Timeout}} = Stream) ->
    case event(Stream, Timeout) of
        {ack, N} -> reply(credit(N, Stream));
        {reply, Result} -> {Result, Stream#stream{token = none}};
        Ended -> {Ended, Stream}
    end.

%% Whatever comes next: a reply, part of one, or what the owner does.
event(#stream{tag = Tag, options = #options{owner = Owner}}, Timeout) ->
    receive
        {Tag, {more, Items}} -> {more, Items};
        {Tag, Result} -> {reply, Result};
        {ack, N} -> {ack, N};
        cancel -> {ended, cancelled};
        {'DOWN', _, process, Owner, _} -> {ended, silent};
        {'DOWN', _, process, _Ctx, Reason} -> {error, {context_down, Reason}}
    after Timeout -> {ended, timeout}
    end.

%% ------------------------------------------------------------------------------------------
%% Steps
%% ------------------------------------------------------------------------------------------

%% Asks for the next step, or waits until the owner has room.
run(Stream) ->
    case room(Stream) of
        0 -> pause(Stream, ?LOOK_FIRST, 0);
        Room -> await(step(Room, Stream))
    end.

step(Room, #stream{options = #options{batch = Batch}, object = Object, flags = Flags} = Stream) ->
    submit(stepping(Object, min(Batch, Room), true, Flags, infinity), Stream).

await(#stream{options = #options{timeout = Timeout}} = Stream) ->
    case event(Stream, Timeout) of
        {ack, N} -> await(credit(N, Stream));
        {more, Items} -> await(deliver(Items, taken(Items, Stream)));
        {reply, {ok, {Items, more}}} -> go_on(Items, taken(Items, Stream#stream{token = none}));
        {reply, {ok, {Items, Last}}} -> tell(Last, deliver(Items, Stream));
        {reply, Error} -> ended(Error, Stream#stream{token = none});
        Ended -> ended(Ended, Stream)
    end.

%% The next step runs while the items of the last one are passed on, if there is room for it for sure.
go_on(Items, #stream{options = #options{batch = Batch}} = Stream) ->
    case room(Stream) of
        Room when Room >= Batch; Stream#stream.credit =/= auto, Room > 0 ->
            await(deliver(Items, step(Room, Stream)));
        _ ->
            run(look(deliver(Items, Stream)))
    end.

deliver([], Stream) ->
    Stream;
deliver(Items, #stream{options = #options{owner = Owner, shape = batch}, ref = Ref} = Stream) ->
    Owner ! {py_stream, Ref, {batch, Items}},
    Stream;
deliver(Items, #stream{options = #options{owner = Owner}, ref = Ref} = Stream) ->
    lists:foreach(fun(Item) -> Owner ! {py_stream, Ref, {data, Item}} end, Items),
    Stream.

%% ------------------------------------------------------------------------------------------
%% Credit
%% ------------------------------------------------------------------------------------------

%% How many items the owner has room for.
room(#stream{credit = auto, unread = Unread}) -> max(0, ?UNREAD - Unread);
room(#stream{credit = Credit}) -> Credit.

credit(_N, #stream{credit = auto} = Stream) -> Stream;
credit(N, #stream{credit = Credit} = Stream) -> Stream#stream{credit = Credit + N}.

taken(Items, #stream{credit = auto, unread = Unread, options = #options{shape = batch}} = Stream) ->
    Count = length(Items),
    Stream#stream{unread = Unread + Count, largest = max(Count, Stream#stream.largest)};
taken(Items, #stream{credit = auto, unread = Unread} = Stream) ->
    Stream#stream{unread = Unread + length(Items)};
taken(Items, #stream{credit = Credit} = Stream) ->
    Stream#stream{credit = max(0, Credit - length(Items))}.

%% Looks how much of what was sent may be unread. Nobody says when an owner reads, so a stream whose
%% owner does not looks now and then.
look(#stream{credit = auto, others = Others, largest = Largest} = Stream) ->
    Messages = queue_len(Stream#stream.options#options.owner),
    Stream#stream{unread = max(0, Messages - Others) * Largest, others = min(Others, Messages)};
look(Stream) ->
    Stream.

pause(#stream{credit = auto} = Stream, Wait, Waited) ->
    case event(Stream, Wait) of
        {ended, timeout} when Waited >= ?COUNT_AFTER -> resume(look(count(Stream)), Wait, 0);
        {ended, timeout} -> resume(look(Stream), Wait, Waited + Wait);
        {ack, _} -> pause(Stream, Wait, Waited);
        Ended -> ended(Ended, Stream)
    end;
pause(Stream, _Wait, _Waited) ->
    case event(Stream, infinity) of
        {ack, N} -> run(credit(N, Stream));
        Ended -> ended(Ended, Stream)
    end.

resume(Stream, Wait, Waited) ->
    case room(Stream) of
        0 -> pause(Stream, min(2 * Wait, ?LOOK_LAST), Waited);
        _ -> run(Stream)
    end.

queue_len(Owner) ->
    case info(Owner, message_queue_len) of
        {_, Length} -> Length;
        undefined -> 0 % its 'DOWN' is on the way
    end.

%% Which of the owner's messages are ours, exactly.
count(#stream{ref = Ref, options = #options{owner = Owner}} = Stream) ->
    case info(Owner, messages) of
        {_, Messages} ->
            Stream#stream{others = length([M || M <- Messages, not is_ours(M, Ref)])};
        undefined ->
            Stream
    end.

is_ours({py_stream, Ref, _}, Ref) -> true;
is_ours(_, _) -> false.

info(Owner, What) when node(Owner) =:= node() ->
    process_info(Owner, What);
info(Owner, What) ->
    try erpc:call(node(Owner), erlang, process_info, [Owner, What])
    catch error:{erpc, _} -> undefined
    end.

%% ------------------------------------------------------------------------------------------
%% The end
%% ------------------------------------------------------------------------------------------

ended({ended, timeout}, #stream{token = Token} = Stream) ->
    case Token =/= none andalso py_nif:cancel_waiting(Token) of
        true -> % it was still in line for its place under the limit
            tell({error, py_request:overloaded()}, Stream),
            close(Stream#stream{token = none});
        false ->
            tell({error, timeout}, Stream),
            close(Stream)
    end;
ended({ended, silent}, Stream) ->
    close(Stream);
ended({ended, cancelled}, Stream) ->
    close(Stream),
    tell({error, cancelled}, Stream);
ended({error, _} = Error, Stream) ->
    tell(Error, Stream).

tell(Last, #stream{options = #options{owner = Owner}, ref = Ref}) ->
    Owner ! {py_stream, Ref, Last},
    ok.

%% Lets the generator's finally blocks run: after the step that is under way.
close(#stream{object = none} = Stream) ->
    settle(Stream, ?GENTLE, ?PATIENCE);
close(#stream{object = Object} = Stream) ->
    ok = settle(Stream, ?GENTLE, ?PATIENCE),
    Closing = submit(closing(Object), Stream),
    settle(Closing, ?PATIENCE, ?PATIENCE).

%% Waits for the reply of the request that is under way; interrupts it when that takes long.
settle(#stream{token = none}, _Wait, _Left) ->
    ok;
settle(#stream{token = Token}, _Wait, Left) when Left =< 0 ->
    _ = py_nif:cancel(Token),
    ok;
settle(#stream{tag = Tag, token = Token} = Stream, Wait, Left) ->
    receive
        {Tag, {more, _}} -> settle(Stream, Wait, Left);
        {Tag, _} -> ok
    after Wait ->
        py_nif:interrupt(Token),
        settle(Stream, min(10 * Wait, Left), Left - Wait)
    end.

/* The limit: the same work as every other contestant, in C over librabbitmq, with next to nothing of its own.
 *
 *   client publish EXCHANGE KEY COUNT SIZE WINDOW        confirmed, persistent, mandatory; WINDOW in flight
 *   client receive QUEUE COUNT PREFETCH EVERY            ack each message (EVERY = 1), or the last of EVERY with "multiple"
 *   client pace    EXCHANGE KEY COUNT SIZE RATE          one message each 1/RATE s, confirms read on the way
 *   client watch   QUEUE COUNT PREFETCH                  ack each, and note when each came
 *   client version                                       of librabbitmq
 *
 * The broker's address comes in the environment: BENCH_HOST BENCH_PORT BENCH_USER BENCH_PASSWORD.
 * The result is one JSON object on the last line of stdout; times are seconds of CLOCK_MONOTONIC, as in Python's monotonic().
 */
#define _GNU_SOURCE
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

static amqp_connection_state_t conn;
static const amqp_channel_t CHANNEL = 1;

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void die(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void status(int code, const char *what) {
    if (code < 0) {
        fprintf(stderr, "%s: %s\n", what, amqp_error_string2(code));
        exit(1);
    }
}

static void reply(const char *what) {
    if (amqp_get_rpc_reply(conn).reply_type != AMQP_RESPONSE_NORMAL) die(what);
}

static const char *setting(const char *name) {
    const char *value = getenv(name);
    if (!value) die(name);
    return value;
}

static void connect_to_broker(void) {
    conn = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(conn);
    if (!socket || amqp_socket_open(socket, setting("BENCH_HOST"), atoi(setting("BENCH_PORT")))) die("no TCP connection");
    amqp_rpc_reply_t login =
        amqp_login(conn, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, setting("BENCH_USER"), setting("BENCH_PASSWORD"));
    if (login.reply_type != AMQP_RESPONSE_NORMAL) die("no login");
    amqp_channel_open(conn, CHANNEL);
    reply("no channel");
}

static void say_ready(void) {
    printf("{\"ready\": true}\n");
    fflush(stdout);
}

/* Publishing ------------------------------------------------------------------------------------------------------- */

static long sent, confirmed, refused, returned;

/* Take in one frame; 0 when none came within `wait`. Confirms may cover many tags: librabbitmq hands them over as they are. */
static int take_frame(struct timeval *wait) {
    static unsigned char *settled; /* by tag: "multiple" must not count again what was confirmed singly */
    static uint64_t below = 1, room;
    amqp_frame_t frame;
    int code = amqp_simple_wait_frame_noblock(conn, &frame, wait);
    if (code == AMQP_STATUS_TIMEOUT) return 0;
    status(code, "waiting for a confirm");
    if (frame.frame_type != AMQP_FRAME_METHOD) return 1; /* header and body of a returned message */
    if (frame.payload.method.id == AMQP_BASIC_RETURN_METHOD) {
        returned++;
    } else if (frame.payload.method.id == AMQP_BASIC_ACK_METHOD) {
        amqp_basic_ack_t *ack = frame.payload.method.decoded;
        if (ack->delivery_tag >= room) {
            uint64_t size = 2 * ack->delivery_tag + 1024;
            settled = realloc(settled, size);
            if (!settled) die("no memory");
            memset(settled + room, 0, size - room);
            room = size;
        }
        if (ack->multiple) {
            for (; below <= ack->delivery_tag; below++) confirmed += !settled[below];
        } else if (ack->delivery_tag >= below && !settled[ack->delivery_tag]) {
            settled[ack->delivery_tag] = 1;
            confirmed++;
        }
    } else if (frame.payload.method.id == AMQP_BASIC_NACK_METHOD) {
        refused++;
    } else {
        die("the broker closed the channel");
    }
    amqp_maybe_release_buffers(conn);
    return 1;
}

static void put(const char *exchange, const char *key, char *body, size_t size) {
    char id[32];
    amqp_basic_properties_t properties;
    memset(&properties, 0, sizeof properties);
    properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG |
                        AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_TYPE_FLAG;
    snprintf(id, sizeof id, "%026ld", sent);
    char digits[16];
    snprintf(digits, sizeof digits, "%08ld", sent);
    memcpy(body, digits, 8);
    properties.content_type = amqp_cstring_bytes("application/json");
    properties.delivery_mode = 2;
    properties.message_id = amqp_cstring_bytes(id);
    properties.timestamp = (uint64_t)time(NULL);
    properties.type = amqp_cstring_bytes("SEND_MESSAGE");
    amqp_bytes_t bytes = {size, body};
    status(amqp_basic_publish(conn, CHANNEL, amqp_cstring_bytes(exchange), amqp_cstring_bytes(key), 1, 0, &properties, bytes), "publish");
    sent++;
}

static char *make_body(size_t size) {
    if (size < 8) die("SIZE must be at least 8");
    char *body = malloc(size);
    if (!body) die("no memory");
    memset(body, 'x', size);
    return body;
}

static void publish(const char *exchange, const char *key, long count, size_t size, long window) {
    char *body = make_body(size);
    struct timeval nothing = {0, 0};
    amqp_confirm_select(conn, CHANNEL);
    reply("no confirms");
    double began = now();
    clock_t used = clock();
    while (confirmed + refused < count) {
        while (sent < count && sent - confirmed - refused < window) put(exchange, key, body, size);
        take_frame(NULL);
        while (take_frame(&nothing)) {}
    }
    printf("{\"seconds\": %.6f, \"cpu\": %.6f, \"confirmed\": %ld, \"returned\": %ld}\n", now() - began,
           (double)(clock() - used) / CLOCKS_PER_SEC, confirmed, returned);
}

static void pace(const char *exchange, const char *key, long count, size_t size, double rate) {
    char *body = make_body(size);
    amqp_confirm_select(conn, CHANNEL);
    reply("no confirms");
    double began = now() + 0.1;
    while (sent < count) {
        double left = began + sent / rate - now();
        if (left <= 0) {
            put(exchange, key, body, size);
        } else {
            struct timeval wait = {0, (suseconds_t)(left * 1e6)};
            take_frame(&wait);
        }
    }
    while (confirmed + refused < count) take_frame(NULL);
    printf("{\"began\": %.6f, \"confirmed\": %ld, \"returned\": %ld}\n", began, confirmed, returned);
}

/* Receiving -------------------------------------------------------------------------------------------------------- */

static void consume(const char *queue, int prefetch) {
    amqp_basic_qos(conn, CHANNEL, 0, (uint16_t)prefetch, 0);
    reply("no prefetch");
    amqp_basic_consume(conn, CHANNEL, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    reply("no consumer");
}

static void next(amqp_envelope_t *envelope) {
    amqp_maybe_release_buffers(conn);
    if (amqp_consume_message(conn, envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL) die("no delivery");
}

static void receive(const char *queue, long count, int prefetch, long every) {
    double began = now();
    clock_t used = clock();
    consume(queue, prefetch);
    for (long i = 1; i <= count; i++) {
        amqp_envelope_t envelope;
        next(&envelope);
        if (i % every == 0 || i == count) status(amqp_basic_ack(conn, CHANNEL, envelope.delivery_tag, every > 1), "ack");
        amqp_destroy_envelope(&envelope);
    }
    amqp_channel_close(conn, CHANNEL, AMQP_REPLY_SUCCESS); /* answered after the last ack: a channel is served in order */
    printf("{\"seconds\": %.6f, \"cpu\": %.6f, \"received\": %ld}\n", now() - began, (double)(clock() - used) / CLOCKS_PER_SEC, count);
}

static void watch(const char *queue, long count, int prefetch) {
    double *arrived = calloc((size_t)count, sizeof *arrived);
    if (!arrived) die("no memory");
    consume(queue, prefetch);
    say_ready();
    for (long i = 0; i < count; i++) {
        amqp_envelope_t envelope;
        next(&envelope);
        double at = now();
        char digits[9] = {0};
        memcpy(digits, envelope.message.body.bytes, 8);
        long index = atol(digits);
        if (index >= 0 && index < count) arrived[index] = at;
        status(amqp_basic_ack(conn, CHANNEL, envelope.delivery_tag, 0), "ack");
        amqp_destroy_envelope(&envelope);
    }
    printf("{\"arrived\": [");
    for (long i = 0; i < count; i++) printf("%s%.6f", i ? ", " : "", arrived[i]);
    printf("]}\n");
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "version")) {
        printf("%s\n", amqp_version());
        return 0;
    }
    if (argc < 4) die("see the top of the source");
    connect_to_broker();
    if (!strcmp(argv[1], "publish") && argc == 7) publish(argv[2], argv[3], atol(argv[4]), (size_t)atol(argv[5]), atol(argv[6]));
    else if (!strcmp(argv[1], "pace") && argc == 7) pace(argv[2], argv[3], atol(argv[4]), (size_t)atol(argv[5]), atof(argv[6]));
    else if (!strcmp(argv[1], "receive") && argc == 6) receive(argv[2], atol(argv[3]), atoi(argv[4]), atol(argv[5]));
    else if (!strcmp(argv[1], "watch") && argc == 5) watch(argv[2], atol(argv[3]), atoi(argv[4]));
    else die("see the top of the source");
    return 0;
}

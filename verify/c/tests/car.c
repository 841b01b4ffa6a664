/* A car in C, over the golden vectors:
 *
 *   car ROOT TRUST STATUS SYNC KEY PROOF
 *
 * Prints a line for each thing it does: what, and the code of the refusal.
 */
#include "fob_car.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t NOW = 1767605400; /* 2026-01-05T09:30:00Z */
static const uint64_t EXPIRES = 1768204800;

void fob_car_panic(void) { abort(); }

/* What this car remembers. It knows one bundle. */
typedef struct notebook {
    uint32_t vehicle_epoch, version, uses;
    uint64_t time, synced_at;
    uint8_t bundle[16];
    bool broken;
    int kind;
} notebook;

static uint32_t vehicle_epoch(void *context) { return ((notebook *)context)->vehicle_epoch; }
static uint64_t time_known(void *context) { return ((notebook *)context)->time; }
static uint64_t synced_at(void *context) { return ((notebook *)context)->synced_at; }

static uint32_t version(void *context, const uint8_t bundle[16]) {
    notebook *book = context;
    return memcmp(book->bundle, bundle, 16) == 0 ? book->version : 0;
}

static uint32_t uses(void *context, const uint8_t bundle[16], uint16_t function) {
    notebook *book = context;
    return function == 1 && memcmp(book->bundle, bundle, 16) == 0 ? book->uses : 0;
}

static bool remember(void *context, const fob_news *news) {
    notebook *book = context;
    if (book->broken) return false;
    book->kind = news->kind;
    if (news->time > book->time) book->time = news->time;
    if (news->kind == FOB_NEWS_USE || news->kind == FOB_NEWS_SYNC)
        if (news->vehicle_epoch > book->vehicle_epoch) book->vehicle_epoch = news->vehicle_epoch;
    if (news->kind == FOB_NEWS_USE) {
        memcpy(book->bundle, news->bundle, 16);
        if (news->version > book->version) book->version = news->version;
        book->uses++;
    }
    if (news->kind == FOB_NEWS_SYNC) book->synced_at = news->time;
    return true;
}

static fob_bytes read_file(const char *path) {
    static uint8_t store[8][40000];
    static size_t used;
    FILE *file = fopen(path, "rb");
    if (!file || used == 8) exit(2);
    fob_bytes bytes = {store[used], fread(store[used], 1, sizeof store[used], file)};
    used++;
    fclose(file);
    return bytes;
}

static fob_bytes text(const char *octets) {
    return (fob_bytes){(const uint8_t *)octets, strlen(octets)};
}

static void say(const char *what, int answer) {
    fob_bytes code = fob_refusal_code(answer);
    if (answer == FOB_OK) printf("%s: ok\n", what);
    else if (answer < 0) printf("%s: bad argument\n", what);
    else printf("%s: %.*s\n", what, (int)code.len, (const char *)code.data);
}

int main(int argc, char **argv) {
    static fob_room room;
    if (argc != 7) return 2;
    notebook book = {0};
    fob_memory memory = {&book, vehicle_epoch, version, time_known, uses, synced_at, remember};
    fob_car car = {0};
    car.vehicle = text("DEMO-0001");
    const uint8_t fleet[16] = {0x01, 0x9b, 0x8b, 0x74, 0x18, 0x00, 0x70, 0x00,
                               0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf1};
    memcpy(car.fleet, fleet, 16);
    car.root = read_file(argv[1]);
    car.clock = NOW;
    fob_bytes trust = read_file(argv[2]), status = read_file(argv[3]), sync = read_file(argv[4]);
    fob_request request = {read_file(argv[5]), read_file(argv[6]), text("challenge-000001"),
                           true, 525162720, 133777220};
    uint16_t function = 0;

    say("a car without a trust list", fob_check(&car, &request, &room, &memory, &function));
    say("the first trust list", fob_take_trust(&car, trust, &memory));
    car.trust = trust;
    say("the same trust list", fob_take_trust(&car, trust, &memory));
    say("a car without a status list", fob_check(&car, &request, &room, &memory, &function));
    fob_bytes uri = {0};
    say("the address of the status list", fob_status_uri(request.key, &uri));
    say("a status list of another address", fob_take_status(&car, status, text("x"), &memory));
    say("the status list", fob_take_status(&car, status, uri, &memory));
    car.lists = &status;
    car.lists_len = 1;
    say("a sync that names a list more", fob_take_sync(&car, sync, &memory));

    fob_request other = request;
    other.challenge = text("challenge-000002");
    say("another challenge", fob_check(&car, &other, &room, &memory, &function));
    other.challenge = text("short");
    say("a short challenge", fob_check(&car, &other, &room, &memory, &function));
    other = request;
    other.position_known = false;
    say("no position", fob_check(&car, &other, &room, &memory, &function));
    other = request;
    other.key.len--;
    say("a key cut short", fob_check(&car, &other, &room, &memory, &function));
    static uint8_t forged[3072];
    memcpy(forged, request.key.data, request.key.len);
    forged[request.key.len - 1] ^= 1;
    other = request;
    other.key.data = forged;
    say("a forged key", fob_check(&car, &other, &room, &memory, &function));
    car.clock = EXPIRES;
    say("a key that has expired", fob_check(&car, &request, &room, &memory, &function));
    car.clock = NOW;
    const fob_patience fresh = {0, FOB_FRESH, 0};
    car.policy = &fresh;
    car.policy_len = 1;
    car.clock = NOW + 1800;
    say("a list that is not fresh", fob_check(&car, &request, &room, &memory, &function));
    car.policy_len = 0;
    car.clock = NOW;
    book.broken = true;
    say("a broken memory", fob_check(&car, &request, &room, &memory, &function));
    book.broken = false;
    say("no room", fob_check(&car, &request, NULL, &memory, &function));
    printf("used: %u, function %u\n", book.uses, function);
    say("the key", fob_check(&car, &request, &room, &memory, &function));
    printf("used: %u, function %u, epoch %u, version %u\n", book.uses, function,
           book.vehicle_epoch, book.version);
    book.version = 2;
    say("the key after a change", fob_check(&car, &request, &room, &memory, &function));
    return 0;
}

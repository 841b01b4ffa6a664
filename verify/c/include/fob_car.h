/* What a car runs of Fob: the check of virtual keys, and the taking of trust
 * lists, status lists and syncs. docs/vehicle.md says how to use it.
 *
 * The library allocates nothing, does no I/O, keeps no state between calls and
 * may be called from several threads, each with a room of its own.
 *
 * For every call: a pointer is valid for the length beside it until the call
 * returns; a null pointer comes with a length of 0; what is pointed to is not
 * changed meanwhile. Callbacks return normally and do not call the library.
 */
#ifndef FOB_CAR_H
#define FOB_CAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What functions return: FOB_OK, FOB_BAD_ARGUMENT for a null pointer where
 * none may be, or a refusal above 0. The numbers of refusals change between
 * versions; their codes (fob_refusal_code) do not. */
#define FOB_OK 0
#define FOB_BAD_ARGUMENT (-1)

/* Octets, not ended by a zero. */
typedef struct fob_bytes {
    const uint8_t *data;
    size_t len;
} fob_bytes;

/* How old a status list may be. */
enum {
    FOB_FRESH = 0,   /* before iat + ttl */
    FOB_VALID = 1,   /* before exp */
    FOB_EXPIRED = 2, /* before exp + grace_s */
    FOB_OFFLINE = 3  /* however old, and without a list */
};

typedef struct fob_patience {
    uint16_t function; /* its code; 0 for all that are not named */
    uint8_t kind;
    uint32_t grace_s;
} fob_patience;

/* The car. */
typedef struct fob_car {
    fob_bytes vehicle;  /* the id it was provisioned with, ASCII */
    uint8_t fleet[16];  /* the fleet's id it was provisioned with */
    fob_bytes root;     /* the root's COSE_Key: provisioned, or of FOB_NEWS_TRUST */
    fob_bytes trust;    /* the trust list it holds; empty before the first */
    const fob_bytes *lists; /* the status lists it holds */
    size_t lists_len;
    const fob_patience *policy; /* at most 32; null for the standard one */
    size_t policy_len;
    uint64_t clock;         /* seconds since 1970-01-01T00:00:00Z */
    uint32_t uncertainty_s; /* by how much it may be wrong */
} fob_car;

/* What a phone asks. */
typedef struct fob_request {
    fob_bytes key;
    fob_bytes proof;
    fob_bytes challenge; /* 16 to 64 random octets; never use them again */
    bool position_known;
    int32_t lat_e7; /* degrees times 10^7, WGS 84 */
    int32_t lon_e7;
} fob_request;

/* What a car has learned, all of it verified. */
enum {
    FOB_NEWS_USE = 1,    /* raise vehicle_epoch, version of bundle; count one use */
    FOB_NEWS_TRUST = 2,  /* keep object as the trust list, root as the root */
    FOB_NEWS_STATUS = 3, /* keep object as the status list of uri */
    FOB_NEWS_SYNC = 4    /* raise vehicle_epoch; keep digest, and time as synced_at */
};

typedef struct fob_news {
    int kind;
    uint64_t time; /* raise the time to this, whatever the kind */
    uint32_t vehicle_epoch;
    uint32_t version;
    uint16_t function;
    uint8_t bundle[16];
    fob_bytes object;
    fob_bytes uri;
    fob_bytes root;
    uint8_t digest[32];
} fob_news;

/* What a car remembers through every loss of power. Nothing in it ever falls.
 * remember makes all of its news durable or nothing, and says whether it did;
 * the car acts only then. */
typedef struct fob_memory {
    void *context;
    uint32_t (*vehicle_epoch)(void *context);
    uint32_t (*version)(void *context, const uint8_t bundle[16]);
    uint64_t (*time)(void *context);
    uint32_t (*uses)(void *context, const uint8_t bundle[16], uint16_t function);
    uint64_t (*synced_at)(void *context);
    bool (*remember)(void *context, const fob_news *news);
} fob_memory;

/* Room to inflate a status list in. Its contents mean nothing between calls. */
typedef struct fob_room {
    uint8_t octets[32768];
} fob_room;

/* Whether the key opens; *function is then the code of what to do. */
int fob_check(const fob_car *car, const fob_request *request, fob_room *room,
              const fob_memory *memory, uint16_t *function);

/* Take what somebody brought, if it is newer than what the car holds. */
int fob_take_trust(const fob_car *car, fob_bytes list, const fob_memory *memory);
int fob_take_status(const fob_car *car, fob_bytes list, fob_bytes uri, const fob_memory *memory);
int fob_take_sync(const fob_car *car, fob_bytes sync, const fob_memory *memory);

/* The address of a key's status list, not verified: what to take a list for. */
int fob_status_uri(fob_bytes key, fob_bytes *uri);

/* The stable code of a refusal; empty for what is none. */
fob_bytes fob_refusal_code(int refusal);

/* Defined by the car's software, for the library that was built without std:
 * called where the library is broken; must not return. */
void fob_car_panic(void);

#ifdef __cplusplus
}
#endif
#endif

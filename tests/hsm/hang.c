/* A PKCS#11 module that is another one, but for a C_Sign that may not return.
 *
 * FOB_TEST_PROVIDER names the library behind it. Whoever signs while the file
 * FOB_TEST_HANG is there, and is the one to remove it, stays in the call for good.
 * Built by a test; the list of functions is that of PKCS#11 v2.40, section 4.6. */
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#define CALLS 68
#define SIGN 43
#define GENERAL_ERROR 5ul

typedef unsigned long word;

struct list {
  unsigned char version[2];
  void *calls[CALLS];
};

static struct list ours;
static word (*their_sign)(word, unsigned char *, word, unsigned char *, word *);

static word sign(word session, unsigned char *data, word len, unsigned char *out, word *out_len) {
  const char *file = getenv("FOB_TEST_HANG");
  if (file && unlink(file) == 0)
    for (;;)
      pause();
  return their_sign(session, data, len, out, out_len);
}

word C_GetFunctionList(struct list **out) {
  if (!their_sign) {
    void *library = dlopen(getenv("FOB_TEST_PROVIDER"), RTLD_NOW);
    word (*get)(struct list **) = library ? (word(*)(struct list **))dlsym(library, "C_GetFunctionList") : 0;
    struct list *theirs;
    if (!get || get(&theirs) != 0)
      return GENERAL_ERROR;
    ours = *theirs;
    their_sign = (word(*)(word, unsigned char *, word, unsigned char *, word *))ours.calls[SIGN];
    ours.calls[SIGN] = (void *)sign;
  }
  *out = &ours;
  return 0;
}

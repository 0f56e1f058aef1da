# make            build everything into build/bin          make run     the trial, set-up included
# make test       set-up, unit and flow tests              make lint    format, clang-tidy, house rules
# make bench      Postern beside nginx and HAProxy         make fuzz    run every fuzz target for FUZZ_SECONDS
# make soak       a day of life in ten minutes             make proof   some flow tests at full length
# make SAN=asan,ubsan test    make SAN=tsan test           make fuzz-replay   their corpora, once
# make install DESTDIR= PREFIX=/usr/local                  make V=1     show the commands
DAEMONS  := proxy authenticate authorize databroker acme
PROGRAMS := $(addprefix postern-,$(DAEMONS)) postern
comma    := ,
MODE     := $(CC)-$(or $(subst $(comma),-,$(SAN)),plain)
B        := build/$(MODE)
BIN      := $(if $(SAN),$(B)/bin,build/bin)
Q        := $(if $(V),,@)
PREFIX   ?= /usr/local
PORT     ?= 8443
DIR      ?= run
JOBS     := -j$(shell nproc)

PKGS     := grpc libprotobuf-c libevent libevent_pthreads openssl libcurl sqlite3 jansson yaml-0.1 libpcre2-8 \
            libnghttp2 libcares jose libcrypt libseccomp
WARN     := -Wall -Wextra -Wshadow -Wundef -Wvla -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes \
            -Wpointer-arith -Wcast-qual -Wwrite-strings -Wswitch-enum -Wimplicit-fallthrough -Wconversion \
            -Wno-format-truncation $(if $(CI),-Werror)
HARDEN   := -fno-plt -fstack-protector-strong -fstack-clash-protection -fcf-protection -fno-common -fPIE \
            -D_FORTIFY_SOURCE=2
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,noexecstack
CFLAGS   ?= -O2 -g
SANFLAGS := $(addprefix -fsanitize=,$(subst asan,address,$(subst ubsan,undefined,$(subst tsan,thread,$(SAN)))))
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) libpq 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lcsv
LDIF_LIBS  := $(shell pkg-config --libs ldap lber 2>/dev/null)
PQ_LIBS    := $(shell pkg-config --libs libpq 2>/dev/null)
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -I. -isystem $(B)/gen $(WARN) $(if $(SAN),-fno-omit-frame-pointer,$(HARDEN)) \
             $(SANFLAGS) $(PKG_CFLAGS) $(CFLAGS) -MD -MP
ALL_LIBS   = $(SANFLAGS) $(if $(SAN),,$(LDHARDEN)) $(LDFLAGS) $(PKG_LIBS) $(OWN_LIBS) -lpthread

# Generated code is compiled without our warnings and never committed. Google's well-known types come
# from protobuf's own package; protobuf-c ships no code for them.
WELL_KNOWN := any duration empty field_mask struct timestamp wrappers
PROTO_DIR  := $(shell pkg-config --variable=includedir protobuf 2>/dev/null || echo /usr/include)
PROTOS     := $(wildcard proto/*.proto)
PB_C       := $(patsubst proto/%.proto,$(B)/gen/%.pb-c.c,$(PROTOS)) \
              $(addprefix $(B)/gen/google/protobuf/,$(addsuffix .pb-c.c,$(WELL_KNOWN)))
PB_H       := $(PB_C:.c=.h)
GEN_C      := $(PB_C) $(B)/gen/descriptors.c
OBJ         = $(patsubst %.c,$(B)/%.o,$(wildcard $(1)/*.c))
COMMON     := $(call OBJ,common) $(call OBJ,common/*)
SHARED     := $(COMMON) $(GEN_C:.c=.o)
TESTS      := $(patsubst test/unit/%.c,$(B)/test/unit/%,$(wildcard test/unit/*/*_test.c test/unit/*/*/*_test.c))
FUZZERS    := $(patsubst test/fuzz/%_fuzz.c,%,$(wildcard test/fuzz/*_fuzz.c))
OWN        := $(wildcard $(addsuffix /*.[ch],common common/* $(DAEMONS) cli test/fuzz test/support test/bench) \
              test/unit/*/*.[ch] test/unit/*/*/*.[ch])
FUZZ_SECONDS ?= 60

all: $(addprefix $(BIN)/,$(PROGRAMS) postern-acme-client)

$(foreach d,$(DAEMONS),$(eval $(BIN)/postern-$(d): $(call OBJ,$(d)) $(SHARED)))
$(BIN)/postern: $(call OBJ,cli) $(SHARED)
# Only the command line reads LDIF.
$(BIN)/postern $(filter $(B)/test/unit/cli/%,$(TESTS)): OWN_LIBS := $(LDIF_LIBS)
# Only the databroker speaks with PostgreSQL.
$(BIN)/postern-databroker $(BIN)/bench-writes $(filter $(B)/test/unit/databroker/%,$(TESTS)): OWN_LIBS := $(PQ_LIBS)
$(addprefix $(BIN)/,$(PROGRAMS)):
	@mkdir -p $(@D); echo "  LD    $@"
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(ALL_LIBS)

# The ACME conversation is a library's, certbot's, and that is in Python.
$(BIN)/postern-acme-client: acme/client.py
	@mkdir -p $(@D)
	$(Q)install -m 0755 $< $@

# A unit test links its module's folder without main.o: a test that reaches further does not link.
$(foreach d,common $(DAEMONS) cli,$(eval $(filter $(B)/test/unit/$(d)/%,$(TESTS)): \
    $(filter-out %/main.o,$(call OBJ,$(d))) $(SHARED) $(filter-out %/disk.o,$(call OBJ,test/support))))
# What one evaluation costs, measured without daemons.
$(BIN)/bench-verdict: $(B)/test/bench/verdict.o $(filter-out %/main.o,$(call OBJ,authorize)) $(SHARED)
	@mkdir -p $(@D); echo "  LD    $@"
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(ALL_LIBS)
$(BIN)/bench-people: $(B)/test/bench/people.o $(filter-out %/main.o,$(call OBJ,databroker)) $(SHARED)
	@mkdir -p $(@D); echo "  LD    $@"
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(ALL_LIBS) $(PQ_LIBS)
# What a write to a store costs, likewise.
$(BIN)/bench-writes: $(B)/test/bench/writes.o $(filter-out %/main.o,$(call OBJ,databroker)) $(SHARED)
	@mkdir -p $(@D); echo "  LD    $@"
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(ALL_LIBS)
$(BIN)/bench-slow-sync.so: test/bench/slow_sync.c
	@mkdir -p $(@D); echo "  LD    $@"
	$(Q)$(CC) $(WARN) -O2 -fPIC -shared -o $@ $<
# A databroker as its clients see it: no part of one, only what they speak with.
$(BIN)/bench-calls $(BIN)/bench-follow: $(BIN)/bench-%: $(B)/test/bench/%.o $(B)/test/bench/session.o $(SHARED)
	@mkdir -p $(@D); echo "  LD    $@"
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(ALL_LIBS)
# Preloaded into a daemon by tests, and into nothing else.
$(BIN)/test-disk.so: test/support/disk.c $(B)/.flags
	@mkdir -p $(@D); echo "  LD    $@"
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) -O2 -g -fPIC -shared -o $@ $<
$(B)/test/unit/%: $(B)/test/unit/%.o
	@mkdir -p $(@D); echo "  LD    $@"
	$(Q)$(CC) -o $@ $(sort $(filter %.o,$^)) $(ALL_LIBS) -lcmocka

$(B)/gen/google/protobuf/%.pb-c.c $(B)/gen/google/protobuf/%.pb-c.h: $(PROTO_DIR)/google/protobuf/%.proto
	@mkdir -p $(B)/gen; echo "  GEN   $@"
	$(Q)protoc-c -I$(PROTO_DIR) --c_out=$(B)/gen $<
$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h: proto/%.proto
	@mkdir -p $(B)/gen; echo "  GEN   $@"
	$(Q)protoc-c -Iproto -I$(PROTO_DIR) --c_out=$(B)/gen $<
# What the reflection service tells (common/rpc/descriptors.h).
$(B)/gen/descriptors.c: $(PROTOS)
	@mkdir -p $(B)/gen; echo "  GEN   $@"
	$(Q)protoc-c -Iproto -I$(PROTO_DIR) --include_imports --descriptor_set_out=$(@:.c=.set) $(PROTOS)
	$(Q){ echo '#include "common/rpc/descriptors.h"'; echo 'const unsigned char rpc_descriptors[] = {'; \
	      od -An -v -tx1 $(@:.c=.set) | sed 's/ \(..\)/0x\1,/g'; \
	      echo '};'; echo 'const size_t rpc_descriptors_size = sizeof(rpc_descriptors);'; } > $@
$(B)/gen/%.o: $(B)/gen/%.c | $(PB_H)
	@mkdir -p $(@D); echo "  CC    $@"
	$(Q)$(CC) $(ALL_CFLAGS) -w -c -o $@ $<
$(B)/%.o: %.c $(B)/.flags | $(PB_H)
	@mkdir -p $(@D); echo "  CC    $@"
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# Rebuild when flags change, not only when sources do.
$(B)/.flags: FORCE
	@mkdir -p $(@D); echo '$(CC) $(ALL_CFLAGS)' | cmp -s - $@ || echo '$(CC) $(ALL_CFLAGS)' > $@

# --- set-up: the missing Debian packages, and only those ---------------------------------------
setup:
	$(Q)deploy/setup.sh build
setup-test:
	$(Q)deploy/setup.sh build test
	$(Q)test/support/history.sh >/dev/null || echo "setup-test: no judge of histories; its tests will be skipped" >&2

# --- what people type --------------------------------------------------------------------------
# Set-up first, then a make of its own: pkg-config's answers depend on it.
run: setup
	$(Q)$(MAKE) --no-print-directory $(JOBS) all
	$(Q)exec $(BIN)/postern up --dir $(DIR) --port $(PORT)

test: setup-test
	$(Q)$(MAKE) --no-print-directory $(JOBS) all unit-programs $(BIN)/test-disk.so
	$(Q)BIN=$(BIN) UNIT=$(B)/test/unit SAN=$(SAN) test/run.sh

unit-programs: $(TESTS)
unit: $(TESTS)
	$(Q)BIN=$(BIN) UNIT=$(B)/test/unit SAN=$(SAN) test/run.sh unit
flow: all $(BIN)/test-disk.so
	$(Q)BIN=$(BIN) UNIT=$(B)/test/unit SAN=$(SAN) FLOW="$(FLOW)" test/run.sh flow

# What some flow tests show in short, at full length; FLOW="history" names files.
proof: setup-test
	$(Q)$(MAKE) --no-print-directory $(JOBS) all $(BIN)/test-disk.so
	$(Q)BIN=$(BIN) SAN=$(SAN) FLOW="$(FLOW)" test/run.sh proof

bench bench-quick: setup-test
	$(Q)$(MAKE) --no-print-directory $(JOBS) all $(BIN)/bench-verdict $(BIN)/bench-people $(BIN)/bench-writes $(BIN)/bench-calls $(BIN)/bench-follow \
	    $(BIN)/bench-slow-sync.so
	$(Q)BIN=$(BIN) test/bench/run.sh $(if $(filter bench-quick,$@),--quick)

SOAK_SECONDS ?= 600
soak: setup-test
	$(Q)$(MAKE) --no-print-directory $(JOBS) all
	$(Q)BIN=$(BIN) test/soak/run.sh --seconds $(SOAK_SECONDS)

# --- fuzzing: clang's libFuzzer over one module each --------------------------------------------
FB        := build/fuzz
FUZZ_CC   := clang-14
FUZZ_SAN  := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
FUZZ_OBJ   = $(patsubst %.c,$(FB)/%.o,$(wildcard $(1)/*.c))
FUZZ_COMMON := $(call FUZZ_OBJ,common) $(call FUZZ_OBJ,common/*) \
               $(patsubst $(B)/gen/%.c,$(FB)/gen/%.o,$(GEN_C)) $(FB)/test/support/pki.o \
               $(FB)/test/support/config_same.o
FUZZ_DAEMON_OBJ := $(foreach d,$(DAEMONS) cli,$(filter-out %/main.o,$(call FUZZ_OBJ,$(d))))
fuzz-programs: $(addprefix $(FB)/bin/,$(FUZZERS))
$(FB)/bin/%: $(FB)/test/fuzz/%_fuzz.o $(FB)/libpostern.a
	@mkdir -p $(@D); echo "  LD    $@"
	$(Q)$(FUZZ_CC) -o $@ $< $(FB)/libpostern.a -fsanitize=fuzzer,address,undefined $(PKG_LIBS) $(PQ_LIBS) $(LDIF_LIBS) -lpthread
$(FB)/libpostern.a: $(FUZZ_COMMON) $(FUZZ_DAEMON_OBJ)
	@rm -f $@; ar rcs $@ $^
$(FB)/gen/%.o: $(B)/gen/%.c | $(PB_H)
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) -std=gnu11 -D_GNU_SOURCE -I. -I$(B)/gen $(FUZZ_SAN) $(PKG_CFLAGS) -O1 -g -w -c -o $@ $<
$(FB)/%.o: %.c | $(PB_H)
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) -std=gnu11 -D_GNU_SOURCE -I. -I$(B)/gen $(FUZZ_SAN) $(PKG_CFLAGS) -O1 -g -MD -MP -c -o $@ $<
fuzz: setup-test
	$(Q)$(MAKE) --no-print-directory $(JOBS) fuzz-programs
	$(Q)FUZZ_SECONDS=$(FUZZ_SECONDS) test/fuzz/run.sh $(FB)/bin run
fuzz-replay: setup-test
	$(Q)$(MAKE) --no-print-directory $(JOBS) fuzz-programs
	$(Q)test/fuzz/run.sh $(FB)/bin replay

# --- rules of the house --------------------------------------------------------------------------
TIDY_FLAGS = -std=gnu11 -D_GNU_SOURCE -I. -isystem $(B)/gen $(PKG_CFLAGS)
lint: $(PB_H)
	$(Q)clang-format-14 --dry-run -Werror $(OWN)
	$(Q)printf '%s\n' $(filter %.c,$(OWN)) | xargs -P $(shell nproc) -n 4 sh -c 'clang-tidy-14 --quiet "$$@" -- $(TIDY_FLAGS) 2>/dev/null' tidy
	$(Q)test/lint.sh
format:
	$(Q)clang-format-14 -i $(OWN)

UNITS := $(wildcard deploy/systemd/*.service deploy/systemd/*.socket)
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/doc/postern
	install -m 0755 $(addprefix $(BIN)/,$(PROGRAMS) postern-acme-client) $(DESTDIR)$(PREFIX)/bin
	install -m 0644 README.md LICENSE $(filter-out docs/README.md,$(wildcard docs/*.md)) $(DESTDIR)$(PREFIX)/share/doc/postern
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d
	for unit in $(UNITS); do sed 's|/usr/local/bin/|$(PREFIX)/bin/|' $$unit >$(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/}; done
	install -m 0644 deploy/systemd/postern.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d

clean:
	rm -rf build

FORCE:
.PHONY: all run test unit flow unit-programs proof bench bench-quick soak fuzz fuzz-programs fuzz-replay lint format install clean setup setup-test FORCE
.SECONDARY:
-include $(shell find $(B) $(FB) -name '*.d' 2>/dev/null)

# silt: build, test and install. `make help` lists the targets.
# Everything built lies in build/; the sanitised variants in build/asan and build/tsan.

ifeq ($(origin CC),default)
CC := gcc
endif
BUILD ?= build
PREFIX ?= /usr/local
SAN ?=
WEAKEN ?=

VERSION := 0.1.0
PKGS_SILT := jansson libxxhash libzstd
PKGS_SILTD := libmicrohttpd jansson libxxhash libzstd sqlite3 nettle liblzma zlib

WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla \
	-Wformat=2 -Wundef -fno-common -Werror
ifneq (,$(findstring gcc,$(shell $(CC) --version | head -n 1)))
WARN += -Wjump-misses-init -Wlogical-op
# Sanitisers' libraries that are linked in: a program starts in two thirds of the time.
SAN_LINK := -static-libasan -static-libubsan -static-libtsan
endif
HARD := -D_FORTIFY_SOURCE=3 -fstack-protector-strong
OPT := -O2 -g
ifneq (,$(SAN))
HARD := -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all
OPT := -O1 -g
endif
CPPFLAGS += -I. -D_GNU_SOURCE -DSILT_VERSION='"$(VERSION)"'
ifneq (,$(WEAKEN))
CPPFLAGS += -DSILT_WEAKEN
endif
CFLAGS += -std=gnu11 $(OPT) $(WARN) $(HARD) -fPIE -fvisibility=hidden -pthread
LDFLAGS += -pie -Wl,-z,relro,-z,now -pthread
ifneq (,$(SAN))
LDFLAGS += -fsanitize=$(SAN) $(SAN_LINK)
endif

SHARED := $(wildcard shared/*.c)
AGENT := $(wildcard agent/*.c)
INIT := $(wildcard server/init*.c) server/filter_rules.c
SERVER := $(filter-out $(wildcard server/init*.c),$(wildcard server/*.c))
UNIT := $(wildcard tests/unit/t_*.c)
FUZZ := $(wildcard tests/fuzz/f_*.c)

LIBS_SILT = $(shell pkg-config --libs $(PKGS_SILT)) -lrsync -linotifytools
# libarchive's tar reader alone: its shared library brings libxml2 and ICU to every start of siltd.
LIBS_SILTD = -l:libarchive.a $(shell pkg-config --libs $(PKGS_SILTD)) -lrsync
obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

all: $(BUILD)/silt $(BUILD)/siltd $(BUILD)/silt-init ## build the three programs

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST))

$(BUILD)/silt: $(call obj,$(AGENT) $(SHARED))
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_SILT)

$(BUILD)/siltd: $(call obj,$(SERVER) $(SHARED))
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_SILTD)

# silt-init runs inside containers whose root may hold no library at all: static, no sanitiser.
$(BUILD)/silt-init: $(INIT) $(wildcard server/init*.h) server/filter_rules.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -std=gnu11 -Os $(WARN) -fvisibility=hidden -static -s -o $@ $(INIT)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# One test program per module. It is linked with everything but the two main files, as archives,
# so that it pulls in just what its module needs.
$(BUILD)/lib%.a:
	@rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/libshared.a: $(call obj,$(SHARED))
$(BUILD)/libagent.a: $(call obj,$(filter-out agent/main.c,$(AGENT)))
$(BUILD)/libserver.a: $(call obj,$(filter-out server/main.c,$(SERVER)))

.SECONDEXPANSION:
libs_of = $(if $(wildcard shared/$(1).c),shared,$(if $(wildcard agent/$(1).c),agent shared,server shared))
$(BUILD)/tests/t_%: $(BUILD)/obj/tests/unit/t_%.o $$(addprefix $(BUILD)/lib,$$(addsuffix .a,$$(call libs_of,$$*)))
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(if $(findstring libagent,$^),$(LIBS_SILT),$(LIBS_SILTD))

UNIT_BINS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT))
unit: $(UNIT_BINS) $(BUILD)/silt-init ## build the unit tests

# Fuzz targets need clang's libFuzzer: make fuzz CC=clang BUILD=build/fuzz SAN=address,undefined,fuzzer-no-link
$(BUILD)/fuzz/f_%: $(BUILD)/obj/tests/fuzz/f_%.o $$(addprefix $(BUILD)/lib,$$(addsuffix .a,$$(call libs_of,$$*)))
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS_SILTD)
fuzz: $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ)) ## build the fuzz targets

test: ## install what is missing, build, run every test
	./scripts/test

check: ## layering, banned calls, formatting, headers that compile alone
	./scripts/check-layers && ./scripts/check-headers && ./scripts/check-docs

attack: all ## hostile programs and uploads, each with its defence on and off
	$(MAKE) BUILD=$(BUILD)/attack WEAKEN=1 all
	./scripts/attack $(BUILD) $(BUILD)/attack

bench: all ## measure against the peers
	./scripts/bench-sync && ./scripts/bench-exec

install: all ## install the programs under $(PREFIX)
	install -D -m 0755 $(BUILD)/silt $(DESTDIR)$(PREFIX)/bin/silt
	install -D -m 0755 $(BUILD)/siltd $(DESTDIR)$(PREFIX)/bin/siltd
	install -D -m 0755 $(BUILD)/silt-init $(DESTDIR)$(PREFIX)/libexec/silt/silt-init

clean: ## remove everything built
	rm -rf $(BUILD)

.PHONY: all help unit fuzz test check attack bench install clean
.PRECIOUS: $(BUILD)/obj/%.o
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

#include "ndpipe/photo/image/heif_boxes.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

namespace ndpipe::photo {
namespace {

constexpr size_t kBoxHeaderBytes = 8;
constexpr size_t kVersionBytes = 4;  // of a full box: version and flags
// A photo's alpha channel made of tiles, or tiles with an alpha channel.
constexpr int kMaxDepth = 2;

std::unexpected<Error> Broken() {
  return Fail(ErrorCode::kDataLoss,
              "the HEIF or AVIF is broken or truncated: its boxes do not fit together");
}

uint64_t BigEndian(std::span<const uint8_t> bytes, size_t at, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | bytes[at + i];
  return value;
}

struct Box {
  std::string_view type;
  std::span<const uint8_t> payload;
};

// The boxes that `bytes` are, one after the other. ISO 14496-12, 4.2.
class Boxes {
 public:
  explicit Boxes(std::span<const uint8_t> bytes) : rest_(bytes) {}

  // Nothing at the end; what is too short for a box is none.
  Result<std::optional<Box>> Next() {
    if (rest_.size() < kBoxHeaderBytes) return std::nullopt;
    uint64_t size = BigEndian(rest_, 0, 4);
    size_t header = kBoxHeaderBytes;
    if (size == 1) {
      header += 8;
      if (rest_.size() < header) return Broken();
      size = BigEndian(rest_, kBoxHeaderBytes, 8);
    } else if (size == 0) {
      size = rest_.size();
    }
    if (size < header || size > rest_.size()) return Broken();
    const Box box{{reinterpret_cast<const char*>(rest_.data()) + 4, 4},
                  rest_.subspan(header, static_cast<size_t>(size) - header)};
    rest_ = rest_.subspan(static_cast<size_t>(size));
    return box;
  }

 private:
  std::span<const uint8_t> rest_;
};

struct Reference {
  bool is_part = false;  // "dimg": `from` is made of `to`; otherwise "auxl": `from` is an alpha
  uint32_t from = 0;     // channel, or the like, of `to`
  uint32_t to = 0;
};

struct Items {
  std::vector<Reference> references;
  std::map<uint32_t, std::set<std::string_view>> types;  // by item, whoever says what it is
  int num_references = 0;                                // boxes of each kind: libheif takes one
  int num_infos = 0;

  // Put together from others, as anyone says; coded, as all say.
  bool IsDerived(uint32_t item) const {
    const auto found = types.find(item);
    return found != types.end() && std::ranges::any_of(found->second, [](std::string_view type) {
             return type == "grid" || type == "iovl" || type == "iden";
           });
  }
  bool IsCoded(uint32_t item) const {
    const auto found = types.find(item);
    return found != types.end() && std::ranges::all_of(found->second, [](std::string_view type) {
             return type == "hvc1" || type == "av01";
           });
  }
};

Status ReadReferences(std::span<const uint8_t> payload, Items& items) {
  if (payload.size() < kVersionBytes || ++items.num_references > 1) return Broken();
  const size_t id_bytes = payload[0] == 0 ? 2 : 4;
  Boxes boxes(payload.subspan(kVersionBytes));
  while (true) {
    NDP_ASSIGN(const auto box, boxes.Next());
    if (!box) return {};
    const bool is_part = box->type == "dimg";
    const bool is_auxiliary = box->type == "auxl";
    if (!is_part && !is_auxiliary) continue;
    const auto bytes = box->payload;
    if (bytes.size() < id_bytes + 2) return Broken();
    const auto from = static_cast<uint32_t>(BigEndian(bytes, 0, id_bytes));
    const size_t count = BigEndian(bytes, id_bytes, 2);
    if (bytes.size() < id_bytes + 2 + count * id_bytes) return Broken();
    for (size_t i = 0; i < count; ++i) {
      const auto to =
          static_cast<uint32_t>(BigEndian(bytes, id_bytes + 2 + i * id_bytes, id_bytes));
      items.references.push_back({is_part, from, to});
    }
  }
}

// An item's id and type. Versions below 2 have no type.
Status ReadItemInfo(std::span<const uint8_t> payload, Items& items) {
  if (payload.size() < kVersionBytes) return Broken();
  const int version = payload[0];
  const size_t id_bytes = version <= 2 ? 2 : 4;
  const size_t type_at = kVersionBytes + id_bytes + 2;
  if (payload.size() < type_at + (version < 2 ? 0 : 4)) return Broken();
  std::string_view type;
  if (version >= 2) type = {reinterpret_cast<const char*>(payload.data()) + type_at, 4};
  const auto id = static_cast<uint32_t>(BigEndian(payload, kVersionBytes, id_bytes));
  items.types[id].insert(type);
  return {};
}

Status ReadItemInfos(std::span<const uint8_t> payload, Items& items) {
  if (payload.size() < kVersionBytes || ++items.num_infos > 1) return Broken();
  const size_t count_bytes = payload[0] == 0 ? 2 : 4;
  if (payload.size() < kVersionBytes + count_bytes) return Broken();
  Boxes boxes(payload.subspan(kVersionBytes + count_bytes));
  for (uint64_t left = BigEndian(payload, kVersionBytes, count_bytes); left > 0; --left) {
    NDP_ASSIGN(const auto box, boxes.Next());
    if (!box) return {};
    if (box->type == "infe") NDP_RETURN_IF_ERROR(ReadItemInfo(box->payload, items));
  }
  return {};
}

Status ReadMeta(std::span<const uint8_t> payload, Items& items) {
  if (payload.size() < kVersionBytes) return Broken();
  Boxes boxes(payload.subspan(kVersionBytes));
  while (true) {
    NDP_ASSIGN(const auto box, boxes.Next());
    if (!box) return {};
    if (box->type == "iref") NDP_RETURN_IF_ERROR(ReadReferences(box->payload, items));
    if (box->type == "iinf") NDP_RETURN_IF_ERROR(ReadItemInfos(box->payload, items));
  }
}

// Whom an item needs to be decoded.
using Needs = std::map<uint32_t, std::set<uint32_t>>;

// Whether a chain of more than kMaxDepth needs exists: one that goes round never ends.
bool GoesTooDeep(const Needs& needs) {
  std::set<uint32_t> reached;
  for (const auto& [item, needed] : needs) reached.insert(item);
  for (int depth = 0; depth <= kMaxDepth && !reached.empty(); ++depth) {
    std::set<uint32_t> next;
    for (const uint32_t item : reached) {
      const auto found = needs.find(item);
      if (found != needs.end()) next.insert(found->second.begin(), found->second.end());
    }
    reached = std::move(next);
  }
  return !reached.empty();
}

}  // namespace

Result<HeifItems> CheckHeifItems(std::span<const uint8_t> photo) {
  Items items;
  Boxes boxes(photo);
  while (true) {
    NDP_ASSIGN(const auto box, boxes.Next());
    if (!box) break;
    if (box->type == "meta") NDP_RETURN_IF_ERROR(ReadMeta(box->payload, items));
  }
  Needs needs;
  bool has_derived = false;
  bool all_coded = true;
  for (const auto& [is_part, from, to] : items.references) {
    // Of other kinds, such as the tone maps of phones, libheif follows no parts.
    if (is_part && !items.IsDerived(from)) continue;
    needs[is_part ? from : to].insert(is_part ? to : from);
    has_derived |= is_part;
    // A part that is no item at all would abort libheif.
    if (is_part && !items.IsCoded(to)) all_coded = false;
  }
  if (GoesTooDeep(needs)) {
    return Fail(ErrorCode::kDataLoss,
                "the HEIF or AVIF is broken: its pictures are made of each other, without end");
  }
  if (!all_coded) {
    return Fail(ErrorCode::kInvalidArgument,
                "a HEIF or AVIF that is composed of other pictures is not a photo: only a grid of "
                "HEVC or AV1 tiles is put together");
  }
  return HeifItems{.has_derived = has_derived};
}

}  // namespace ndpipe::photo

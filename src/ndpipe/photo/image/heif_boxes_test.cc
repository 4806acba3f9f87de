// Files whose items refer to each other in ways that libheif does not survive.
#include "ndpipe/photo/image/heif_boxes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ndpipe/photo/image/hostile_photos.h"
#include "ndpipe/photo/image/preprocess.h"

namespace ndpipe::photo {
namespace {

using std::string_literals::operator""s;

std::string BigEndian(uint64_t value, int bytes) {
  std::string text;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    text.push_back(static_cast<char>(value >> shift));
  }
  return text;
}

std::string Box(std::string_view type, const std::string& payload) {
  return BigEndian(payload.size() + 8, 4) + std::string(type) + payload;
}

std::string FullBox(std::string_view type, int version, const std::string& payload) {
  return Box(type, BigEndian(static_cast<uint64_t>(version) << 24, 4) + payload);
}

// A grid of one tile.
std::string Grid(uint32_t side) { return "\0\1\0\0"s + BigEndian(side, 4) + BigEndian(side, 4); }

struct Reference {
  std::string type;
  uint32_t from = 0;
  std::vector<uint32_t> to;
};
using Items = std::map<uint32_t, std::pair<std::string, std::string>>;  // type and data, by id

std::string Locations(const Items& items) {
  std::string locations = "\x44\x00"s + BigEndian(items.size(), 2);
  size_t offset = 0;
  for (const auto& [id, item] : items) {
    locations += BigEndian(id, 2) + BigEndian(1, 2) + BigEndian(0, 2) + BigEndian(1, 2) +
                 BigEndian(offset, 4) + BigEndian(item.second.size(), 4);
    offset += item.second.size();
  }
  return locations;
}

// The properties that items have, and which of them, by item.
struct Properties {
  std::string boxes = FullBox("ispe", 0, BigEndian(64, 4) + BigEndian(64, 4));
  std::map<uint32_t, std::string> of_item;  // "\x01\x81" where not given: one, the first
};

// All items are of 64 × 64 pixels unless properties say otherwise; the first is the photo.
std::vector<uint8_t> Heif(const Items& items, const std::vector<Reference>& references,
                          int id_bytes = 2, const Properties& given = {}) {
  std::string infos = BigEndian(items.size(), 2);
  std::string properties = BigEndian(items.size(), 4);
  std::string data;
  for (const auto& [id, item] : items) {
    infos += FullBox("infe", 2, BigEndian(id, 2) + "\0\0"s + item.first + "\0"s);
    const auto of_item = given.of_item.find(id);
    properties +=
        BigEndian(id, 2) + (of_item != given.of_item.end() ? of_item->second : "\x01\x81"s);
    data += item.second;
  }
  std::string edges;
  for (const Reference& reference : references) {
    std::string ids = BigEndian(reference.from, id_bytes) + BigEndian(reference.to.size(), 2);
    for (const uint32_t to : reference.to) ids += BigEndian(to, id_bytes);
    edges += Box(reference.type, ids);
  }
  const std::string file =
      Box("ftyp", "heic\0\0\0\0mif1heic"s) +
      FullBox("meta", 0,
              FullBox("hdlr", 0, "\0\0\0\0pict"s + std::string(13, '\0')) +
                  FullBox("pitm", 0, BigEndian(items.begin()->first, 2)) +
                  FullBox("iloc", 1, Locations(items)) + FullBox("iinf", 0, infos) +
                  FullBox("iref", id_bytes == 2 ? 0 : 1, edges) +
                  Box("iprp", Box("ipco", given.boxes) + FullBox("ipma", 0, properties)) +
                  Box("idat", data));
  return {file.begin(), file.end()};
}

void ExpectRefused(const std::vector<uint8_t>& file, ErrorCode code) {
  const auto checked = CheckHeifItems(file);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, code) << checked.error().message;
  std::vector<uint8_t> out(static_cast<size_t>(PreprocessSpec().num_bytes()));
  EXPECT_FALSE(Preprocess(file, {}, {}, out));
}

TEST(HeifItemsTest, ThatAreMadeOfEachOtherAreRefused) {
  const std::string grid = Grid(64);
  for (const int id_bytes : {2, 4}) {
    ExpectRefused(Heif({{1, {"grid", grid}}}, {{"dimg", 1, {1}}}, id_bytes), ErrorCode::kDataLoss);
    ExpectRefused(Heif({{1, {"grid", grid}}, {2, {"grid", grid}}},
                       {{"dimg", 1, {2}}, {"dimg", 2, {1}}}, id_bytes),
                  ErrorCode::kDataLoss);
    ExpectRefused(Heif({{1, {"iden", ""}}}, {{"dimg", 1, {1}}}, id_bytes), ErrorCode::kDataLoss);
    // Its own alpha channel, and that of what it is made of.
    ExpectRefused(Heif({{1, {"hvc1", "x"}}}, {{"auxl", 1, {1}}}, id_bytes), ErrorCode::kDataLoss);
    ExpectRefused(Heif({{1, {"grid", grid}}, {2, {"hvc1", "x"}}},
                       {{"dimg", 1, {2}}, {"auxl", 1, {2}}}, id_bytes),
                  ErrorCode::kDataLoss);
  }
}

TEST(HeifItemsTest, ThatAreComposedAreRefused) {
  const std::string grid = Grid(64);
  ExpectRefused(Heif({{1, {"grid", grid}}, {2, {"grid", grid}}, {3, {"hvc1", "x"}}},
                     {{"dimg", 1, {2}}, {"dimg", 2, {3}}}),
                ErrorCode::kInvalidArgument);
  // Of what is not there, and of what is no picture.
  ExpectRefused(Heif({{1, {"grid", grid}}, {2, {"hvc1", "x"}}}, {{"dimg", 1, {7}}}),
                ErrorCode::kInvalidArgument);
  ExpectRefused(Heif({{1, {"grid", grid}}, {2, {"Exif", "x"}}}, {{"dimg", 1, {2}}}),
                ErrorCode::kInvalidArgument);
  // Each level four times the one below: without the check, 4^19 pictures.
  Items items;
  std::vector<Reference> references;
  for (uint32_t id = 1; id < 20; ++id) {
    items[id] = {"grid", grid};
    references.push_back({"dimg", id, {id + 1, id + 1, id + 1, id + 1}});
  }
  items[20] = {"hvc1", "x"};
  ExpectRefused(Heif(items, references), ErrorCode::kDataLoss);
}

TEST(HeifItemsTest, OfAGridWithAnAlphaChannelAreAccepted) {
  const std::string grid = Grid(64);
  const auto file =
      Heif({{1, {"grid", grid}}, {2, {"hvc1", "x"}}, {3, {"grid", grid}}, {4, {"hvc1", "y"}}},
           {{"dimg", 1, {2, 2, 2}}, {"auxl", 3, {1}}, {"dimg", 3, {4}}, {"thmb", 2, {1}}});
  const auto checked = CheckHeifItems(file);
  ASSERT_TRUE(checked) << checked.error().message;
  EXPECT_TRUE(checked->has_derived);
  EXPECT_FALSE(CheckHeifItems(Heif({{1, {"hvc1", "x"}}}, {}))->has_derived);
  // Newer phones: a tone map, which libheif passes over, is made of the grid and its gain map.
  EXPECT_TRUE(CheckHeifItems(Heif({{1, {"grid", grid}}, {2, {"hvc1", "x"}}, {3, {"tmap", "t"}}},
                                  {{"dimg", 1, {2}}, {"dimg", 3, {1, 2}}})));
}

// The whole box of the type, wherever it stands.
std::string FindBox(std::string_view file, std::string_view type) {
  const size_t at = file.find(type);
  if (at == std::string_view::npos) return {};
  size_t size = 0;
  for (size_t i = at - 4; i < at; ++i) size = size << 8 | static_cast<uint8_t>(file[i]);
  return std::string(file.substr(at - 4, size));
}

// As phones store photos: a grid of two by two, whose tiles are whole coded pictures; this one,
// HEVC or AV1, four times. Empty for photos of other formats.
std::vector<uint8_t> Tiled(const TestPhoto& photo) {
  constexpr uint32_t kTileWidth = 160;
  constexpr uint32_t kTileHeight = 120;
  const bool is_hevc = photo.name.ends_with(".heic");
  if (!is_hevc && !photo.name.ends_with(".avif")) return {};
  const std::string_view file(reinterpret_cast<const char*>(photo.bytes.data()),
                              photo.bytes.size());
  const Properties properties{
      .boxes = FullBox("ispe", 0, BigEndian(2 * kTileWidth, 4) + BigEndian(2 * kTileHeight, 4)) +
               FullBox("ispe", 0, BigEndian(kTileWidth, 4) + BigEndian(kTileHeight, 4)) +
               FindBox(file, is_hevc ? "hvcC" : "av1C"),
      .of_item = {{2, "\x02\x82\x83"s}}};
  const std::string tile = FindBox(file, "mdat").substr(8);
  const std::string grid =
      "\0\1\1\1"s + BigEndian(2 * kTileWidth, 4) + BigEndian(2 * kTileHeight, 4);
  return Heif({{1, {"grid", grid}}, {2, {is_hevc ? "hvc1" : "av01", tile}}},
              {{"dimg", 1, {2, 2, 2, 2}}}, 2, properties);
}

TEST(HeifItemsTest, OfAGridOfRealTilesAreDecoded) {
  int num_tried = 0;
  for (const TestPhoto& photo : GeneratedPhotos()) {
    const auto tiled = Tiled(photo);
    if (tiled.empty()) continue;
    ++num_tried;
    const PreprocessSpec spec{
        .resize_short_side = 240, .crop_height = 240, .crop_width = 240};  // as it is
    std::vector<uint8_t> out(static_cast<size_t>(spec.num_bytes()));
    const auto done = Preprocess(tiled, spec, {}, out);
    ASSERT_TRUE(done) << photo.name << ": " << done.error().message;
    // Both rows of tiles are the same.
    const auto half = static_cast<ptrdiff_t>(out.size() / 2);
    EXPECT_TRUE(std::equal(out.begin(), out.begin() + half, out.begin() + half)) << photo.name;
    EXPECT_NE(*std::ranges::min_element(out), *std::ranges::max_element(out));
    const auto small = Preprocess(tiled, spec, {.max_pixels = 10'000}, out);
    EXPECT_EQ(small.error().code, ErrorCode::kResourceExhausted);
  }
  if (num_tried == 0) GTEST_SKIP() << "libheif has no encoders";
}

TEST(HeifItemsTest, OfDamagedGridsAreRefusedOrDecoded) {
  const PreprocessSpec spec{.resize_short_side = 64, .crop_height = 56, .crop_width = 56};
  std::vector<uint8_t> out(static_cast<size_t>(spec.num_bytes()));
  for (const TestPhoto& photo : GeneratedPhotos()) {
    const auto tiled = Tiled(photo);
    for (uint32_t seed = 0; seed < (tiled.empty() ? 0 : 700); ++seed) {
      const auto done = Preprocess(Damaged(tiled, seed), spec, {.max_pixels = 1'000'000}, out);
      if (!done) {
        EXPECT_FALSE(done.error().message.empty());
      }
    }
  }
}

TEST(HeifItemsTest, InBoxesThatDoNotFitAreRefused) {
  const auto file = Heif({{1, {"grid", Grid(64)}}, {2, {"hvc1", "x"}}}, {{"dimg", 1, {2}}});
  for (size_t size = 32; size < file.size(); ++size) {
    (void)CheckHeifItems(std::span(file).first(size));
  }
  EXPECT_EQ(CheckHeifItems(std::span(file).first(file.size() - 1)).error().code,
            ErrorCode::kDataLoss);
  for (size_t at = 0; at < file.size(); ++at) {
    for (const uint8_t value : {0x00, 0x01, 0x7F, 0xFF}) {
      auto damaged = file;
      damaged[at] = value;
      (void)CheckHeifItems(damaged);
    }
  }
}

}  // namespace
}  // namespace ndpipe::photo

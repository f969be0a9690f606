"""The names and things in the miniature's tasks, in English and Chinese; entry n of one list translates entry n of the other.

Problem keys use these indices, never the words, so that a problem is on the same side of the train/test split in both languages.
"""

from __future__ import annotations

from r1_lightning.types.text import Language

Words = dict[Language, tuple[str, ...]]

PEOPLE: Words = {
    "en": ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Ida", "Jim", "Kay"),
    "zh": ("小安", "小波", "小春", "小丹", "小梅", "小飞", "小刚", "小雨", "小军", "小凯"),
}
THINGS: Words = {
    "en": ("bike", "book", "lamp", "map", "boat", "clock", "bag", "drum", "cup", "coat"),
    "zh": ("自行车", "书", "灯", "地图", "船", "钟", "包", "鼓", "杯子", "大衣"),
}
EVENTS: Words = {
    "en": ("dinner", "picnic", "concert", "game", "party", "walk"),
    "zh": ("晚饭", "野餐", "音乐会", "比赛", "聚会", "散步"),
}
DAYS: Words = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"),
    "zh": ("周一", "周二", "周三", "周四", "周五", "周六"),
}
PLACES: Words = {
    "en": ("Rome", "Paris", "Oslo", "Cairo", "Lima", "Delhi", "Tokyo", "Berlin"),
    "zh": ("罗马", "巴黎", "奥斯陆", "开罗", "利马", "德里", "东京", "柏林"),
}
WEATHER: Words = {
    "en": ("sunny", "windy", "rainy", "cold", "warm", "foggy"),
    "zh": ("晴朗", "有风", "下雨", "寒冷", "温暖", "有雾"),
}
# Categories for list requests: the category's name, and its members. No Chinese member is a substring of another in its category.
KINDS: Words = {
    "en": ("colours", "animals", "fruits", "tools", "drinks"),
    "zh": ("颜色", "动物", "水果", "工具", "饮料"),
}
MEMBERS: dict[Language, tuple[tuple[str, ...], ...]] = {
    "en": (
        ("red", "blue", "green", "white", "black", "pink"),
        ("cat", "dog", "horse", "cow", "bird", "fish"),
        ("apple", "pear", "plum", "peach", "lemon", "grape"),
        ("hammer", "saw", "drill", "knife", "axe", "pliers"),
        ("tea", "coffee", "milk", "soda", "juice", "cocoa"),
    ),
    "zh": (
        ("红色", "蓝色", "绿色", "白色", "黑色", "粉色"),
        ("猫", "狗", "马", "牛", "鸟", "鱼"),
        ("苹果", "梨", "李子", "桃子", "柠檬", "葡萄"),
        ("锤子", "锯子", "钻头", "刀", "斧头", "钳子"),
        ("茶", "咖啡", "牛奶", "汽水", "果汁", "可可"),
    ),
}
# Made-up nouns for "every dax is a rex", so that only the question says anything about them.
CLASSES: Words = {
    "en": ("dax", "rex", "mip", "tov", "wug", "zib", "lop", "fep", "gim", "kul"),
    "zh": ("甲", "乙", "丙", "丁", "戊", "己", "庚", "辛", "壬", "癸"),
}

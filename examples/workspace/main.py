from shop_server import answer

print(answer("tea"))
print(answer("coffee"))
